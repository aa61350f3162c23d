"""Step check: what runs on an engine is watched, timed out, cancelled, and its end recorded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from orchestrator.checkstatus.trouble import Troubles
from orchestrator.clock import seconds_since, surely_seconds_since
from orchestrator.engines.base import Ended, Engine, Running, State, Unsure
from orchestrator.errors import EngineDown
from orchestrator.job import Job
from orchestrator.state import JobStatus
from orchestrator.store.database import StoreBusy, apart
from orchestrator.store.running import doubt, ended, ending_of, free_cpu, is_over, progress
from orchestrator.store.taking import ask_end

log = logging.getLogger(__name__)

SILENT_ENGINE = 60.0  # seconds after which a caller is told of its cancel or timeout though the engine does not answer


CHECK, CANCEL, TIMEOUT = "check", "cancel", "timeout"  # among the troubles of a job


class Checker:
    """Watches what runs on one engine. Belongs to the thread of that engine."""

    def __init__(self, engine: Engine, troubles: Troubles | None = None) -> None:
        self._engine = engine
        self._troubles = troubles or Troubles(engine.name)

    def look(self, jobs: Sequence[Job]) -> Mapping[int, State | Exception]:
        """Ask the engine about the jobs that have an execution, or only hold a CPU for what may run.

        What it cannot tell of one job delays no other. Raises EngineDown where it is not about one job.
        """
        due = [job for job in jobs if _may_run(job) and self._troubles.is_due(job, CHECK)]
        return self._look(due) if due else {}

    def record(self, jobs: Sequence[Job], found: Mapping[int, State | Exception]) -> bool:
        """Record what was found of jobs; whether anything ended. Asks the engine nothing."""
        changed = False
        for job in jobs:
            if job.id in found:
                with self._troubles.apart(job, CHECK), apart():
                    changed |= self._take(job, found[job.id])
        return changed

    def cancel(self, jobs: Sequence[Job], found: Mapping[int, State | Exception]) -> None:
        """Have those end that are to, but for those found ended. Raises EngineDown where it is not about one job."""
        for job in jobs:
            state = found.get(job.id)
            if isinstance(state, Ended) and not state.may_run_on:
                continue
            if job.ending is not None and job.execution is not None:
                with self._troubles.apart(job, CANCEL):
                    self._cancel(job)

    def _look(self, jobs: Sequence[Job]) -> Mapping[int, State | Exception]:
        """Ask about all jobs at once; one by one where a fault of this program with one of them forbids it."""
        try:
            return self._engine.check(jobs)
        except (EngineDown, StoreBusy):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other jobs have nothing to do with it
            if len(jobs) == 1:
                return {jobs[0].id: exc}
            return {job_id: state for job in jobs for job_id, state in self._look([job]).items()}

    def _take(self, job: Job, state: State | Exception) -> bool:
        """Record what was found of a job; whether it ended."""
        if isinstance(state, Exception):
            self._troubles.note(job, CHECK, state)
            return False
        changed = False
        if isinstance(state, Ended):
            changed = self._end(job, state)
        elif isinstance(state, Running) and not is_over(job):
            if (state.rows_masked, state.rows_total) != (job.rows_masked, job.rows_total):
                progress(job, state.rows_masked, state.rows_total)
        if not isinstance(state, Ended) and isinstance(state, Unsure) != (job.unsure_tick is not None):
            doubt(job, isinstance(state, Unsure))
        self._troubles.clear(job, CHECK)
        return changed

    def _cancel(self, job: Job) -> None:
        if not self._troubles.is_due(job, CANCEL):
            return
        try:
            self._engine.cancel(job)
        except EngineDown as exc:
            self._engine.describe()  # raises where it is not about this job alone
            self._troubles.note(job, CANCEL, exc)
        else:
            self._troubles.clear(job, CANCEL)

    def _end(self, job: Job, state: Ended) -> bool:
        """Record an end; whether there was anything to record."""
        if is_over(job):
            if state.may_run_on:
                return False
            lost = "nothing runs that it may have started"
            changed = free_cpu(job, f"execution {job.execution} has ended: {state.status}" if job.execution else lost)
        else:
            status, reason = state.status, state.reason
            if job.ending is not None and status is not JobStatus.FINISHED:
                status, reason = ending_of(job), job.ending_why
            changed = ended(
                job, status, reason, exit_status=state.exit_status, detail=state.detail,
                rows_masked=state.rows_masked, rows_total=state.rows_total,
                may_retry=not state.may_run_on, cpu_is_free=not state.may_run_on,
            )  # fmt: skip
            if changed:
                log.info("job %d (%s): %s%s", job.id, job.name, status, f": {reason}" if reason else "")
        if not state.may_run_on:
            self._engine.forget(job)
        return changed

    def time_out(self, jobs: Sequence[Job]) -> bool:
        """Ask to end those that run longer than they may; whether there was one."""
        asked = False
        for job in jobs:
            with self._troubles.apart(job, TIMEOUT):
                if job.ending is None and not is_over(job) and _is_late(job):
                    what = "ran longer than" if job.execution else "its start had no answer for"
                    asked |= ask_end(job.id, JobStatus.TIMEOUT, f"{what} {job.timeout:g} s")
        return asked

    def tell_without_engine(self, jobs: Sequence[Job], why: str) -> bool:
        """Tell callers that a cancel or timeout ended their wait, where the engine has not confirmed it for long.

        `why` it does not. The CPU stays theirs: the execution may run on, and is cancelled once the engine answers.
        """
        told = False
        for job in jobs:
            if job.ending is None or is_over(job) or (job.execution is None and job.starter is None):
                continue
            with self._troubles.apart(job, CANCEL):
                if seconds_since(job.ending_tick or "", job.submitted_at) >= SILENT_ENGINE:
                    why_it_ends = job.ending_why or "asked to end"
                    reason = f"{why_it_ends}; the engine does not confirm it, so the execution may still run: {why}"
                    told |= ended(job, ending_of(job), reason, cpu_is_free=False)
        return told


def _may_run(job: Job) -> bool:
    return job.execution is not None or is_over(job)


def _is_late(job: Job) -> bool:
    return job.timeout is not None and age_of(job) >= job.timeout


def age_of(job: Job) -> float:
    """Give the seconds that a job runs, or may run since its start was meant; -1 where nobody began to start it."""
    if job.started_tick is not None and job.started_at is not None:
        return seconds_since(job.started_tick, job.started_at)
    if job.starter is not None and job.starting_tick is not None:
        return surely_seconds_since(job.starting_tick)
    return -1.0
