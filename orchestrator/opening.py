"""Opening the database of an installation: one that was lost is never replaced by a new, empty one in silence.

Its callers would wait for ever: nothing knows of their jobs any more. So where there was a database before, or callers
wait who must have been in one, and there is none now, opening it is refused, until an operator has decided.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from orchestrator.errors import StoreError
from orchestrator.settings import Settings
from orchestrator.spool.forgotten import waiting_lights
from orchestrator.store import database

KNOWN = "database.known"  # in run_dir: which database there was
ON_PURPOSE = "new-queue"  # in run_dir, made by an operator: begin with an empty queue


def open_queue(settings: Settings) -> None:
    """Open the database of the settings, and make it where there never was one.

    Raises StoreError, also where there was one.
    """
    file = database.file_of(settings.database)
    known, on_purpose = settings.run_dir / KNOWN, settings.run_dir / ON_PURPOSE
    # In this order: another program that begins just now makes the file before it leaves word of it.
    was_there = _read(known) == str(file)
    is_meant = on_purpose.exists()
    if _is_missing(file) and not is_meant:
        lost = "it was there before" if was_there else _who_waits(settings)
        if lost:
            raise StoreError(
                f"{file}: the database is missing, but {lost}: restore it; "
                f"or, to begin with an empty queue on purpose, make the file {on_purpose}"
            )
    database.open_database(settings.database)
    with contextlib.suppress(OSError):  # a run_dir that is read-only or full: then it is not remembered
        if not was_there:
            known.write_text(f"{file}\n", encoding="utf-8", errors="surrogateescape")
        on_purpose.unlink(missing_ok=True)


def _is_missing(file: Path) -> bool:
    try:
        return file.stat().st_size == 0  # as SQLite sees it, that is a new one too
    except FileNotFoundError:
        return True
    except OSError:
        return False  # opening it tells what is wrong


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
    except OSError:
        return ""


def _who_waits(settings: Settings) -> str:
    """Tell of callers who must have been in the database that is missing; empty where there are none."""
    for spool in settings.spools.values():
        waiting = waiting_lights(spool.path)
        if waiting:
            more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
            return f"callers wait in spool {spool.name} for jobs that were taken ({waiting[0]}{more})"
    return ""
