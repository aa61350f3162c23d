#!/bin/sh
# Runs one command job and keeps its exit status, whatever becomes of the daemons meanwhile.
# Usage: command_run.sh CLAIM BOOT_ID PROGRAM [ARGUMENT ...], with its own start time, as /proc has it, on stdin.
#
# The claim comes first: whoever creates it, decides. A daemon that finds a start without an outcome creates it
# itself, and then this never runs the command. See docs/decisions/0004-command-supervision.md.
set -Cu
claim=$1 boot=$2
shift 2
# Told by the daemon, as a shell reads a file byte by byte, and /proc/PID/stat is long.
read -r start || exit 0
{ printf '%s:%s:%s\n' "$$" "$start" "$boot" > "$claim"; } 2> /dev/null || exit 0
exec < /dev/null
# Signals are for the command; this one stays to tell how it ended.
trap : TERM INT HUP QUIT
"$@"
# Its last byte, a line's end, says that it is whole: a rename would cost another process.
printf '%s\n' "$?" >> "$claim"
