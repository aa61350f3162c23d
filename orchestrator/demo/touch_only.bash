#!/usr/bin/env bash
# The least of callers: it only touches. The job's name is the file's, up to the @.
# Usage: touch_only.bash JOB, with ORCHESTRATOR_SPOOL set.
set -u
name=$ORCHESTRATOR_SPOOL/$1@$$

touch "$name.job"
# The orchestrator makes the light before it takes the job file, so it must be looked for in this order.
while [ -e "$name.job" ] || { [ -e "$name.trafficlight" ] && [ ! -s "$name.trafficlight" ]; }; do sleep 1; done
[ -e "$name.trafficlight" ] || exit 0

cat "$name.trafficlight" >&2
rm -f "$name.trafficlight"
exit 1
