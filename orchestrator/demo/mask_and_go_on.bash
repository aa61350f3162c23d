#!/usr/bin/env bash
# The usual caller: in a script of long ago, one line now runs the masking job through the spool.
# Usage: mask_and_go_on.bash JOB, with ORCHESTRATOR_SPOOL set.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Waits for the light. Where it turns red, the job's exit status ends this script here.
bash "$here/../orchestrator.bash" "$1"

echo "$1 is masked: its copy may be handed out"
