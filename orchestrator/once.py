"""What cron runs once, where no daemon may run: each step, for all spools and engines, and then it ends."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.daemon import Worker, beat, make_worker, seed, this_host
from orchestrator.engines.base import make_engine
from orchestrator.scheduler.gone import GoneEngine, gone_engines
from orchestrator.scheduler.schedule import cancel_for_gone_callers, schedule, tidy
from orchestrator.settings import Settings
from orchestrator.spool.claim import ignore_lease_breaks
from orchestrator.spool.directory import SpoolGone
from orchestrator.spool.intake import Intake
from orchestrator.spool.release import Release
from orchestrator.spool.watch import show_served
from orchestrator.store.database import StoreBusy, close_database

log = logging.getLogger(__name__)


@contextmanager
def workers_once(settings: Settings) -> Iterator[dict[str, Worker]]:
    """Give workers that have no thread of their own, for a step that runs once."""
    engines = [make_engine(engine, settings) for engine in settings.engines.values()]
    engines += [GoneEngine(name, settings) for name in gone_engines(settings)]
    workers = {engine.name: make_worker(engine, lambda: None) for engine in engines}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.engine.close()


def watch_once(settings: Settings) -> tuple[int, bool]:
    """Take what lies in all spools: how many job files became rows, and whether every spool could be served."""
    ignore_lease_breaks()
    taken, served = 0, True
    for spool in settings.spools.values():
        try:
            try:
                show_served(settings, spool)
            finally:
                taken += Intake(settings, spool, this_host()).take_all()
        except Exception as exc:  # noqa: BLE001 - one spool that cannot be served keeps no other waiting
            why = f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.filename else repr(exc)
            log.error(
                "spool %s (%s) cannot be used: %s", spool.name, spool.path, exc if isinstance(exc, SpoolGone) else why
            )
            served = False
    return taken, served


def schedule_once(settings: Settings) -> int:
    """Ask each engine what it has, and place what can be placed; how many engines got a job."""
    seed(settings)
    beat(settings)
    with workers_once(settings) as workers:
        _tick_all(workers)
        cancel_for_gone_callers(this_host())
        tidy(set())
        # Whoever starts what is placed is another process.
        known = {
            name: replace(worker.known(), intent=None) for name, worker in workers.items() if name in settings.engines
        }
        return len(schedule(known).engines)


def checkstatus_once(settings: Settings) -> bool:
    """Start, check and release once; False where a caller could not be released now."""
    beat(settings)
    with workers_once(settings) as workers:
        _tick_all(workers)
    return Release(settings, this_host()).release_all()


def _tick_all(workers: dict[str, Worker]) -> None:
    """One tick of each engine, side by side: one that hangs delays no other."""

    def tick(worker: Worker) -> None:
        with contextlib.suppress(StoreBusy):
            worker.tick()
        close_database()

    threads = [threading.Thread(target=tick, args=(worker,), daemon=True) for worker in workers.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
