"""How fast job files are taken that wait in the spool at the start."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.place import place
from benchmarks.row import Row
from orchestrator.opening import open_queue
from orchestrator.settings import load_settings
from orchestrator.spool.claim import ignore_lease_breaks
from orchestrator.spool.intake import Intake
from orchestrator.store.database import close_database

FILES = 100_000


def intake() -> Iterator[Row]:
    """100,000 job files with their lights."""
    rate = intake_rate(FILES)
    yield Row(
        f"{FILES:,} job files that wait at the start, taken a second",
        f"{rate:,.0f}",
        goal="≥ 8,000",
        met=rate >= 8_000,
    )


def intake_rate(files: int) -> float:
    """Let the real intake take so many files; how many it took a second, each durable."""
    with place() as here:
        settings = load_settings(here.settings)
        open_queue(settings)
        try:
            for number in range(files):
                here.drop(f"J{number}", "command=true")
            ignore_lease_breaks()
            taking = Intake(settings, settings.spools["default"], "bench")
            began = time.monotonic()
            taken = taking.take_all()
            took = time.monotonic() - began
        finally:
            close_database()
        if taken != files:
            raise SystemExit(f"{taken} of {files} job files were taken")
    return files / took
