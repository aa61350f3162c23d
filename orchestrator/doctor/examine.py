"""All checks, in the order in which they are told."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.doctor.beats import check_schedule_beat, check_spool_beat, serving_uid
from orchestrator.doctor.database import check_database
from orchestrator.doctor.disk import check_disk
from orchestrator.doctor.engines import ask_engines, check_cpus
from orchestrator.doctor.events import check_events, check_limits
from orchestrator.doctor.finding import Finding, Level, fail, guarded, side_by_side
from orchestrator.doctor.jobs import STUCK, Light, check_jobs, check_lights, red_lights
from orchestrator.doctor.settings import check_client, check_commands, check_settings
from orchestrator.doctor.spool import check_spool
from orchestrator.errors import SettingsError, StoreError
from orchestrator.settings import Settings, SpoolSettings, load_settings
from orchestrator.store.looking import Rows, looking, read_rows


def examine(file: Path, seconds: float) -> list[Finding]:
    """Look an installation over; `seconds` are what engines, and file systems that hang, have to answer."""
    try:
        settings = load_settings(file, look_only=True)
    except SettingsError as exc:
        return [fail("settings", str(exc), "correct the file: nothing else was looked at")]
    with _quiet():
        return _examine(settings, seconds)


def _examine(settings: Settings, seconds: float) -> list[Finding]:
    host = socket.gethostname()
    serving = serving_uid(settings)
    found = guarded("settings", lambda: check_settings(settings))
    found += guarded("commands", lambda: check_commands(settings))
    found += guarded("client", check_client)
    found += guarded("disk", lambda: check_disk(settings))
    found += guarded("inotify", lambda: check_limits(os.geteuid() if serving is None else serving))
    found += guarded("schedule", lambda: check_schedule_beat(settings))
    spools = side_by_side(
        {
            name: lambda spool=spool: _look_at(spool, serving)  # type: ignore[misc]
            for name, spool in settings.spools.items()
        },
        seconds,
    )
    for name, spool in settings.spools.items():
        if name in spools:
            found += spools[name][0]
        else:
            told = f"{spool.path}: no answer within {seconds:g} s"
            found.append(fail(f"spool {name}", told, "does its file system hang? Nothing is taken or released"))
    of_database = guarded("database", lambda: check_database(settings, serving))
    found += of_database
    rows: Rows | None = None
    try:
        rows = _rows(settings)  # after the lights were listed: see check_lights
    except StoreError as exc:
        if all(finding.level is Level.OK for finding in of_database):
            found.append(fail("database", str(exc), "see to the file and its directory"))
    if rows is not None:
        for name, (_, lights) in spools.items():
            spool = settings.spools[name]
            found += guarded(f"spool {name}", lambda s=spool, seen=lights: check_lights(s, seen, rows, host))  # type: ignore[misc]
    answers = ask_engines(settings, rows, seconds)
    for answer in answers.values():
        found += answer.findings
    if rows is not None:
        found += guarded("engines", lambda: check_cpus(settings, rows))
        found += guarded("jobs", lambda: check_jobs(settings, rows, answers, host))
    return found


def _look_at(spool: SpoolSettings, serving: int | None) -> tuple[list[Finding], list[Light]]:
    subject = f"spool {spool.name}"
    found = guarded(subject, lambda: check_spool(spool, serving))
    if not spool.path.is_dir():
        return found, []
    found += guarded(subject, lambda: check_events(spool))
    found += guarded(subject, lambda: check_spool_beat(spool))
    try:
        return found, red_lights(spool.path)
    except OSError:  # told above
        return found, []


def _rows(settings: Settings) -> Rows:
    """Read the rows. Raises StoreError."""
    since = (datetime.now(UTC) - timedelta(seconds=STUCK)).strftime("%Y-%m-%dT%H:%M:%S")
    with looking(settings.database):
        return read_rows(since)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what engines and observers log from standing between the lines: what matters is found."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
