"""Heartbeats: whether anything takes job files, and anything places, starts and releases."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.doctor.finding import Finding, fail, lasting, ok, warn
from orchestrator.settings import Settings, SpoolSettings
from orchestrator.spool.caller import HEARTBEAT_STALE
from orchestrator.spool.directory import HEARTBEAT
from orchestrator.spool.watch import SCHEDULE_BEAT, SCHEDULE_SILENT

LATE = 90.0  # seconds: cron comes every 60, a program every 10
AHEAD = 5.0  # seconds by which a heartbeat may be in the future, as on a file system of another host


def check_schedule_beat(settings: Settings) -> Iterator[Finding]:
    """See whether something places, starts, checks and releases."""
    advice = "start `orchestrator schedule`, or `up`; its log says why it ended"
    yield _beat("schedule", settings.run_dir / SCHEDULE_BEAT, SCHEDULE_SILENT, "nothing schedules", advice)


def check_spool_beat(spool: SpoolSettings) -> Iterator[Finding]:
    """See whether something takes job files from a spool."""
    advice = "start `orchestrator watch`, or `up`; it gives no heartbeat while nothing schedules"
    yield _beat(f"spool {spool.name}", spool.path / HEARTBEAT, HEARTBEAT_STALE, "the spool is not served", advice)


def _beat(subject: str, file: Path, stale: float, otherwise: str, advice: str) -> Finding:
    try:
        age = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return fail(subject, f"{otherwise}: there is no {file}", advice)
    if age >= stale:
        return fail(subject, f"{otherwise}: the heartbeat is {lasting(age)} old", advice)
    if age < -AHEAD:
        return warn(subject, f"the heartbeat is {lasting(-age)} in the future", "see whether the clock was set back")
    found = f"the heartbeat is {lasting(max(0.0, age))} old"
    if age >= LATE:
        return warn(subject, f"{found}: late", "see whether the program hangs, or cron is kept from coming each minute")
    return ok(subject, found)


def serving_uid(settings: Settings) -> int | None:
    """Tell as which user the programs run, by whose heartbeats there are; None where none ever ran."""
    for file in (settings.run_dir / SCHEDULE_BEAT, *(spool.path / HEARTBEAT for spool in settings.spools.values())):
        try:
            return os.stat(file).st_uid
        except OSError:
            continue
    return None
