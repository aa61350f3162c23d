#!/bin/sh
# Runs one command job and keeps how it ended, whatever becomes of the daemons meanwhile.
# Usage: command_run.sh PROGRAM [ARGUMENT ...], with the attempt's file, open and locked, as stdin.
#
# The lock lasts as long as this process: nobody else has the file open. See docs/decisions/0004-command-supervision.md.
set -u
# Without this line the command has not run.
printf 'ran %s\n' "$$" >&0 || exit 125
# Signals are for the command; this one stays to tell how it ended.
trap : TERM INT HUP QUIT
"$@" < /dev/null
printf 'exit %s\n' "$?" >&0
