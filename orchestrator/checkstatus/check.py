"""Step check: what runs on an engine is watched, timed out, cancelled, and its end recorded."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from orchestrator.clock import seconds_since
from orchestrator.engines.base import Ended, Engine, Running
from orchestrator.errors import EngineDown
from orchestrator.job import Job
from orchestrator.state import JobStatus
from orchestrator.store.running import ended, free_cpu, is_over, progress
from orchestrator.store.taking import ask_end

log = logging.getLogger(__name__)

SILENT_ENGINE = 60.0  # seconds after which a caller is told of its cancel or timeout though the engine does not answer


class Checker:
    """Watches what runs on one engine. Belongs to the thread of that engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self, jobs: Sequence[Job]) -> bool:
        """Look at the jobs that have an execution; whether anything ended. Raises EngineDown."""
        running = [job for job in jobs if job.execution is not None]
        if not running:
            return False
        for job in running:
            if job.ending is not None:
                self._engine.cancel(job)
        found = self._engine.check(running)
        changed = False
        for job in running:
            state = found.get(job.id)
            if isinstance(state, Ended):
                self._end(job, state)
                changed = True
            elif isinstance(state, Running) and not is_over(job):
                if (state.rows_masked, state.rows_total) != (job.rows_masked, job.rows_total):
                    progress(job, state.rows_masked, state.rows_total)
        return changed

    def _end(self, job: Job, state: Ended) -> None:
        if is_over(job) and state.may_run_on:
            return
        if is_over(job):
            free_cpu(job, f"execution {job.execution} has ended: {state.status}")
        else:
            status, reason = state.status, state.reason
            if job.ending is not None and status is not JobStatus.FINISHED:
                status, reason = JobStatus(job.ending), job.ending_why
            ended(
                job, status, reason, exit_status=state.exit_status, detail=state.detail,
                rows_masked=state.rows_masked, rows_total=state.rows_total,
                may_retry=not state.may_run_on, cpu_is_free=not state.may_run_on,
            )  # fmt: skip
            log.info("job %d (%s): %s%s", job.id, job.name, status, f": {reason}" if reason else "")
        if not state.may_run_on:
            self._engine.forget(job)

    def time_out(self, jobs: Sequence[Job]) -> bool:
        """Ask to end those that run longer than they may; whether there was one."""
        late = [job for job in jobs if job.ending is None and not is_over(job) and _is_late(job)]
        for job in late:
            ask_end(job.id, JobStatus.TIMEOUT, f"ran longer than {job.timeout:g} s")
        return bool(late)

    def tell_without_engine(self, jobs: Sequence[Job], down: EngineDown) -> bool:
        """Tell callers that a cancel or timeout ended their wait, where the engine has not answered for long.

        The CPU stays theirs: the execution may run on, and is cancelled once the engine answers.
        """
        told = False
        for job in jobs:
            if job.ending is None or is_over(job) or job.execution is None:
                continue
            if seconds_since(job.ending_tick or "", job.submitted_at) >= SILENT_ENGINE:
                reason = f"{job.ending_why}; the engine does not answer, so the execution may still run: {down}"
                told |= ended(job, JobStatus(job.ending), reason, cpu_is_free=False)
        return told


def _is_late(job: Job) -> bool:
    if job.timeout is None or job.started_tick is None or job.started_at is None:
        return False
    return seconds_since(job.started_tick, job.started_at) >= job.timeout
