#!/usr/bin/env bash
# A caller without any help: the six lines of docs/protocol.md.
# Usage: six_lines.bash JOB, with ORCHESTRATOR_SPOOL set.
set -u
SPOOL=$ORCHESTRATOR_SPOOL JOB=$1 NAME=$1@$$

: > "$SPOOL/$NAME.trafficlight"
printf 'job=%s\n' "$JOB" > "$SPOOL/.$NAME.tmp" && mv "$SPOOL/.$NAME.tmp" "$SPOOL/$NAME.job"
while [ -e "$SPOOL/$NAME.trafficlight" ] && [ ! -s "$SPOOL/$NAME.trafficlight" ]; do sleep 1; done
[ ! -e "$SPOOL/$NAME.trafficlight" ] && exit 0
cat "$SPOOL/$NAME.trafficlight" >&2; rm -f "$SPOOL/$NAME.trafficlight"; exit 1
