"""Step start: each job that was placed is started once (P4): commit the intent, act, record the execution."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.checkstatus.trouble import Troubles
from orchestrator.clock import tick, utc_now
from orchestrator.engines.base import Engine, StartLost
from orchestrator.errors import EngineDown, StartRefused, StartUnknown
from orchestrator.job import Job
from orchestrator.process import ProcessIdentity
from orchestrator.state import JobStatus
from orchestrator.store.database import writing
from orchestrator.store.placing import Intent
from orchestrator.store.running import (
    adopt,
    ended,
    ending_of,
    executions_of_others,
    intend_start,
    is_over,
    not_started,
    started,
)
from orchestrator.store.views import job_by_id

log = logging.getLogger(__name__)


START = "start"  # among the troubles of a job


@dataclass(frozen=True)
class _Begun:
    """A start that is not recorded yet: the job with its intent, and what runs since when."""

    job: Job
    execution: str
    at: str
    tick: str


class Starter:
    """Starts what was placed on one engine. Belongs to the thread of that engine."""

    def __init__(self, engine: Engine, host: str, me: ProcessIdentity, troubles: Troubles | None = None) -> None:
        self._engine = engine
        self._troubles = troubles or Troubles(engine.name)
        self._host = host
        self._me = f"{host}/{me}"
        self._begun: dict[int, _Begun] = {}
        # Placed together with the intent to start them, by whichever thread; in force once a row says the same.
        self._intended: dict[int, Job] = {}
        self.intent = Intent(self._me, self._note)

    def start(self, jobs: Sequence[Job]) -> bool:
        """Start the SCHEDULED ones among `jobs`; whether one of them holds its CPU no longer.

        What the engine cannot tell of one job delays no other. Raises EngineDown where it is not about one job:
        those that it left are tried again.
        """
        freed = False
        for job in jobs:
            with self._troubles.apart(job, START):
                if job.status == JobStatus.SCHEDULED:
                    freed |= self._step(job)
                elif is_over(job) and job.execution is None and job.ending is not None:
                    self._find_ended(job)
        return freed

    def _note(self, job: Job) -> None:
        self._intended[job.id] = job

    def take_intended(self, job: Job) -> bool:
        """Take the intent that a job was placed with: who gets True acts on it. False where it bears none of ours."""
        intended = self._intended.get(job.id)
        if intended is None or (job.starter, job.attempts) != (intended.starter, intended.attempts):
            return False
        del self._intended[job.id]
        return True

    def _step(self, job: Job) -> bool:
        """Do what is next for a SCHEDULED job; whether it holds its CPU no longer."""
        if self.take_intended(job):
            return not_started(job, "asked to end") if job.ending is not None else self._begin(job)
        if self._is_being_started(job):
            return False
        if job.starter is None and job.ending is not None:
            return ended(job, ending_of(job), job.ending_why)
        if not self._troubles.is_due(job, START):
            return False
        return not (self._start(job) if job.starter is None else self._resolve(job))

    def _is_being_started(self, job: Job) -> bool:
        """Tell whether another living process is about to start it. Our own intent can only be a left-over one."""
        if job.starter is None or job.starter == self._me:
            return False
        host, _, process = job.starter.rpartition("/")
        try:
            starter = ProcessIdentity.parse(process)
        except ValueError:
            return False  # nobody: it was written by hand
        return host != self._host or starter.is_alive()

    def _cannot_tell(self, job: Job, exc: EngineDown) -> bool:
        """Try it again later, where the engine answers otherwise; True: the job holds its CPU."""
        self._engine.describe()  # raises where it is not about this job alone
        self._troubles.note(job, START, exc)
        return True

    def _begin(self, job: Job) -> bool:
        """Start a job whose intent is recorded; whether it holds its CPU no longer. Raises EngineDown.

        That it runs is to be recorded, by `record`. Until that is done, or where it is never done, the intent keeps it
        from being started again.
        """
        execution = self._launch(job)
        if execution is None:
            return True
        self._begun[job.id] = _Begun(job, execution, utc_now(), tick())
        return False

    def has_begun(self) -> bool:
        """Tell whether there is anything to `record`."""
        return bool(self._begun)

    def as_begun(self, jobs: Sequence[Job]) -> list[Job]:
        """Give `jobs`, those that were begun as they will be once that is recorded."""
        return [self._as_begun(job) for job in jobs]

    def _as_begun(self, job: Job) -> Job:
        begun = self._begun.get(job.id)
        if begun is None or (job.status, job.starter, job.attempts) != (
            JobStatus.SCHEDULED, begun.job.starter, begun.job.attempts,
        ):  # fmt: skip
            return job
        return job.but(
            status=JobStatus.RUNNING.value, execution=begun.execution, started_at=begun.at, started_tick=begun.tick
        )

    def record(self) -> list[tuple[Job, str]]:
        """Record what was begun, in one commit; those that somebody changed meanwhile: they are to be given up."""
        lost: list[tuple[Job, str]] = []
        if not self._begun:
            return lost
        with writing():
            for each in self._begun.values():
                job = each.job
                if started(job, each.execution, at=each.at, tick_=each.tick):
                    log.info("job %d (%s) runs on %s %s as %s", job.id, job.name, job.engine, job.cpu, each.execution)
                else:
                    lost.append((job, each.execution))
        self._begun.clear()
        return lost

    def give_up(self, lost: Sequence[tuple[Job, str]]) -> bool:
        """Cancel what was begun and could not be recorded; whether one of the jobs holds its CPU no longer."""
        freed = False
        for job, execution in lost:
            freed |= not self._give_up(job, execution)
        return freed

    def _intend(self, job: Job) -> Job | bool:
        """Record that a job is about to be started; where that is not to be, only whether it holds its CPU."""
        try:
            mark = self._engine.mark(job)
        except StartRefused as exc:
            return self._fail(job, str(exc))
        except EngineDown as exc:
            return self._cannot_tell(job, exc)
        self._troubles.clear(job, START)
        return intend_start(job, self._me, mark) or True

    def _start(self, job: Job) -> bool:
        """Start a job; False where it holds its CPU no longer."""
        intended = self._intend(job)
        if isinstance(intended, bool):
            return intended
        try:
            freed = self._begin(intended)
        finally:
            lost = self.record()
        return not (freed | self.give_up(lost))

    def _launch(self, job: Job) -> str | None:
        """Start a job whose intent is recorded; its execution, None where it holds its CPU no longer."""
        try:
            return self._engine.start(job)
        except StartRefused as exc:
            self._fail(job, str(exc))
        except StartUnknown as exc:
            log.warning("job %d (%s): a start on %s had no answer: %s", job.id, job.name, self._engine.name, exc)
            raise EngineDown(str(exc)) from exc
        except EngineDown as exc:
            not_started(job, f"engine {self._engine.name} could not be reached: {exc}")
            self._engine.forget(job)
            raise
        return None

    def _give_up(self, job: Job, execution: str) -> bool:
        """Cancel an execution of ours that nobody watches: its row was changed while it was being started."""
        now = job_by_id(job.id)
        if now is not None and (now.engine, now.execution) == (job.engine, execution):
            return True  # somebody else has recorded the very same
        told = f"job {job.id} ({job.name}): execution {execution} on {self._engine.name} is not recorded, "
        told += "since its job was changed meanwhile: "
        try:
            self._engine.cancel(job.but(execution=execution))
        except EngineDown as exc:
            log.warning("%sIT MAY RUN ON, and cannot be cancelled: %s", told, exc)
        else:
            log.warning("%scancelled", told)
        if adopt(job, execution):  # its caller was told an end: the step check sees to its CPU
            return True
        self._engine.forget(job)
        return False

    def _resolve(self, job: Job) -> bool:
        """Find out what became of a start whose outcome nobody recorded; False where it holds its CPU no longer."""
        try:
            execution = self._engine.find_start(job, executions_of_others(job))
        except StartLost as exc:
            reason = f"whether it was started on {self._engine.name} cannot be told: {exc}"
            if job.on_unknown != "retry":
                # It may run: `retries` are for what surely does not.
                return self._fail(job, reason, may_retry=False, cpu_is_free=not exc.may_run)
            return not not_started(job, f"{reason}; on_unknown=retry")
        except EngineDown as exc:
            return self._cannot_tell(job, exc)
        self._troubles.clear(job, START)
        if execution is None:
            not_started(job, f"the start did not reach {self._engine.name}")
            self._engine.forget(job)
            return False
        if not started(job, execution):
            return False  # another one was first; which execution is whose, it knows better
        log.info("job %d (%s): found running on %s as %s", job.id, job.name, job.engine, execution)
        return True

    def _find_ended(self, job: Job) -> None:
        """Find what became of a start whose caller was told an end meanwhile, so that it can be cancelled."""
        if job.starter is None or self._is_being_started(job) or not self._troubles.is_due(job, START):
            return
        try:
            execution = self._engine.find_start(job, executions_of_others(job))
        except StartLost:
            return  # the step check sees to its CPU
        except EngineDown as exc:
            self._cannot_tell(job, exc)
            return
        self._troubles.clear(job, START)
        if execution is not None and adopt(job, execution):
            log.info("job %d (%s): found on %s as %s, to be cancelled", job.id, job.name, job.engine, execution)

    def _fail(self, job: Job, reason: str, *, may_retry: bool = True, cpu_is_free: bool = True) -> bool:
        ended(job, JobStatus.FAILED, reason, may_retry=may_retry, cpu_is_free=cpu_is_free)
        if cpu_is_free:
            self._engine.forget(job)
        log.warning("job %d (%s): %s", job.id, job.name, reason)
        return False
