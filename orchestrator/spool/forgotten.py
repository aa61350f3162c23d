"""Lights that wait for a job that nothing knows of, as after the database was lost, or restored from an older copy.

Nobody can tell how such a job ended, so its light is left alone: a person is told.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator.job import JOB_SUFFIX, LIGHT_SUFFIX
from orchestrator.spool.directory import PRIVATE

SETTLED = 60.0  # seconds that a caller has between its light and its job file


def waiting_lights(path: Path, older_than: float = 0.0) -> list[str]:
    """Give the NAMEs whose light is red and has stood for so many seconds, and whose job file was taken away."""
    try:
        names = set(os.listdir(path))
        claimed = {name.rpartition(".")[0] for name in os.listdir(path / PRIVATE)}
    except OSError:  # it was never served, or is not there: nothing was taken from it
        return []
    lights = (name.removesuffix(LIGHT_SUFFIX) for name in names if name.endswith(LIGHT_SUFFIX))
    left = (name for name in lights if name + JOB_SUFFIX not in names and name not in claimed)
    return sorted(name for name in left if _is_red(path / (name + LIGHT_SUFFIX), older_than))


def _is_red(light: Path, older_than: float) -> bool:
    try:
        status = os.stat(light, follow_symlinks=False)
    except OSError:
        return False
    return status.st_size == 0 and time.time() - status.st_mtime >= older_than
