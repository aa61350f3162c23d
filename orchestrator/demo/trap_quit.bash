#!/usr/bin/env bash
# A caller that gives its pid, and so is sent SIGQUIT when its job does not finish.
# Usage: trap_quit.bash JOB, with ORCHESTRATOR_SPOOL set.
set -u
name=$1@$$
light=$ORCHESTRATOR_SPOOL/$name.trafficlight
draft=$ORCHESTRATOR_SPOOL/.$name.tmp

red() { # STATUS: tell why, and end
    cat "$light" >&2
    rm -f "$light"
    exit "$1"
}
trap 'red 131' QUIT # the light is rewritten before the signal is sent

: >"$light"
printf 'job=%s\npid=%s\n' "$1" "$$" >"$draft" && mv "$draft" "$ORCHESTRATOR_SPOOL/$name.job"
while [ -e "$light" ] && [ ! -s "$light" ]; do
    sleep 1 &
    wait $! # a trap acts at once while bash waits, but only after a command in the foreground
done
[ -e "$light" ] || exit 0
for _ in 1 2 3; do # the signal is on its way; should it be lost, the light has told already
    sleep 1 &
    wait $!
done
red 1
