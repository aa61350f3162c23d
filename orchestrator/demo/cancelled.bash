#!/usr/bin/env bash
# A caller whose job somebody else cancels. Shows orchestrator.bash as functions, and NAME.cancel.
# Usage: cancelled.bash JOB, with ORCHESTRATOR_SPOOL set.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null # a file of its own, checked by itself
. "$here/../orchestrator.bash"

orchestrator_submit --priority 90 "$1" >/dev/null || exit
name=$ORCHESTRATOR_SPOOL/$ORCHESTRATOR_NAME

( # somebody else, a second after the job was taken
    while [ -e "$name.job" ]; do sleep 0.1; done
    sleep 1
    touch "$name.cancel"
) &

orchestrator_wait "$ORCHESTRATOR_NAME"
status=$?
wait
exit "$status"
