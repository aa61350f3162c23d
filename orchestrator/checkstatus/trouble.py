"""What goes wrong with single jobs of an engine that serves all others: kept apart from them, and tried ever later."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.errors import EngineDown
from orchestrator.job import Job, ascii_line
from orchestrator.store.database import StoreBusy

log = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 0.5, 15.0  # seconds until what went wrong with a job is tried again


@dataclass
class _Trouble:
    job: Job
    why: str
    times: int = 0
    due: float = 0.0  # on the monotonic clock


class Troubles:
    """The troubles of one engine's jobs, each under what was to be done. Belongs to the thread of that engine."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._found: dict[tuple[int, str], _Trouble] = {}

    def is_due(self, job: Job, what: str) -> bool:
        """Tell whether something may be tried: it went well, or long enough ago."""
        found = self._found.get((job.id, what))
        return found is None or time.monotonic() >= found.due

    def note(self, job: Job, what: str, exc: Exception) -> None:
        """Keep what went wrong; the log is told the first time."""
        is_fault = not isinstance(exc, EngineDown)
        why = f"a fault of this program: {type(exc).__name__}: {ascii_line(exc)}" if is_fault else str(exc)
        found = self._found.get((job.id, what))
        if found is None:
            found = self._found[job.id, what] = _Trouble(job, why)
            told = f"job {job.id} ({job.name}): {what} on {self._engine}: {why}; trying again"
            log.log(logging.ERROR if is_fault else logging.WARNING, "%s", told)
        found.why = why
        found.due = time.monotonic() + min(LAST_RETRY, FIRST_RETRY * 2 ** min(found.times, 10))
        found.times += 1

    def clear(self, job: Job, what: str) -> None:
        """Forget what went wrong: now it went well."""
        self._found.pop((job.id, what), None)

    @contextmanager
    def apart(self, job: Job, what: str) -> Iterator[None]:
        """Let no fault of this program with one job, such as a row that makes no sense, keep others from their turn."""
        try:
            yield
        except (EngineDown, StoreBusy):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other jobs have nothing to do with it
            self.note(job, what, exc)

    def keep_only(self, jobs: Iterable[Job]) -> None:
        """Forget all jobs but these."""
        ids = {job.id for job in jobs}
        self._found = {key: found for key, found in self._found.items() if key[0] in ids}

    def about(self, job: Job) -> str | None:
        """Give what goes wrong with a job, if anything does."""
        return next((found.why for (job_id, _), found in self._found.items() if job_id == job.id), None)

    def told(self) -> str | None:
        """Say in one line what goes wrong, for people; None where nothing does."""
        if not self._found:
            return None
        (_, what), first = next(iter(self._found.items()))
        more = f" (and {len(self._found) - 1} more)" if len(self._found) > 1 else ""
        return f"job {first.job.id} ({first.job.name}): {what}: {first.why}{more}"
