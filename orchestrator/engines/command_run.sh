#!/bin/sh
# Runs one command job and keeps its exit status, whatever becomes of the daemons meanwhile.
# Usage: command_run.sh STATE_DIRECTORY BOOT_ID PROGRAM [ARGUMENT ...]
#
# The claim comes first: whoever creates it, decides. A daemon that finds a start without an outcome creates it
# itself, and then this never runs the command. See docs/decisions/0004-command-supervision.md.
set -Cu
state=$1 boot=$2
shift 2
read -r stat < "/proc/$$/stat" || exit 125
{ printf '%s\n%s\n' "$stat" "$boot" > "$state/claim"; } 2> /dev/null || exit 0
# Signals are for the command; this one stays to tell how it ended.
trap : TERM INT HUP QUIT
"$@"
# Its last byte, a line's end, says that it is whole: a rename would cost another process.
printf '%s\n' "$?" > "$state/exit"
