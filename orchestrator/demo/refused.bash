#!/usr/bin/env bash
# A caller that is refused: a job file has no key `colour`. Its file is then found in rejected/, with the reason.
# Usage: refused.bash JOB, with ORCHESTRATOR_SPOOL set.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec bash "$here/../orchestrator.bash" "$1" colour=blue
