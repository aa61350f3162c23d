"""Step release: the light of an ended job is removed or rewritten, and its caller is signalled.

It follows the row, never leads it (P2), and can be cut off anywhere: what stands in the spool tells how far it came.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections import defaultdict
from collections.abc import Sequence

from orchestrator.job import Job
from orchestrator.process import ProcessIdentity, signal_caller
from orchestrator.settings import Settings
from orchestrator.spool.claim import is_asked_again
from orchestrator.spool.directory import SpoolDirectory, SpoolGone
from orchestrator.spool.light import Released, turn_green, turn_red
from orchestrator.state import JobStatus
from orchestrator.store.releasing import ids_to_release, jobs_to_release, record_released

log = logging.getLogger(__name__)


class Release:
    """Releases the callers of this host's spools."""

    def __init__(self, settings: Settings, host: str) -> None:
        self._settings = settings
        self._host = host
        self._complained: set[str] = set()

    def release_all(self) -> bool:
        """Release every caller whose job has ended; False where a spool could not serve, and some still wait."""
        by_spool: dict[str, list[Job]] = defaultdict(list)
        for job in jobs_to_release(self._host):
            by_spool[job.spool].append(job)
        served = [self._release(name, jobs) for name, jobs in by_spool.items()]
        return all(served)

    def _release(self, name: str, jobs: Sequence[Job]) -> bool:
        settings = self._settings.spools.get(name)
        if settings is None:
            self._complain(name, f"{len(jobs)} callers wait in spool {name}, which the settings no longer have")
            return False
        done: list[tuple[int, str]] = []
        stuck = ""
        try:
            with SpoolDirectory(settings.path) as spool, spool.locked():
                # Under the lock, what intake has superseded meanwhile is no longer there.
                due = ids_to_release(self._host)
                for job in jobs:
                    try:
                        if is_asked_again(spool, job):
                            # The light may stand for the new request: intake takes that first, and supersedes this.
                            stuck = f"{job.name}: a new job file of that name is to be taken first"
                        elif job.id in due:
                            done.append((job.id, _release_one(spool, job).value))
                    except OSError as exc:  # one light that cannot be changed must not keep the others waiting
                        stuck = f"{job.name}: {exc}"
                    except Exception as exc:  # noqa: BLE001 - nor must a fault of ours that one row brings out
                        stuck = f"{job.name}: a fault of this program: {exc!r}"
                spool.sync_lights()
                record_released(done)
        except (SpoolGone, OSError) as exc:
            self._complain(name, f"spool {name}: lights cannot be changed now: {exc}")
            return False
        if stuck:
            self._complain(name, f"spool {name}: a light cannot be changed now: {stuck}")
            return False
        self._complained.discard(name)
        return True

    def _complain(self, spool: str, what: str) -> None:
        if spool not in self._complained:
            log.error("%s", what)
            self._complained.add(spool)


def _release_one(spool: SpoolDirectory, job: Job) -> Released:
    if job.status == JobStatus.FINISHED:
        return turn_green(spool, job)
    released = turn_red(spool, job)
    if released is Released.RED and job.caller is not None and job.owner is not None:
        with contextlib.suppress(ValueError):  # it names no process, so no caller is proven (P6)
            signal_caller(ProcessIdentity.parse(job.caller), job.owner, signal.SIGQUIT)
    return released
