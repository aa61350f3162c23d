"""One engine's thread: start, check, and what is known of the engine's health. One slow engine delays no other."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from orchestrator.checkstatus.check import Checker, age_of
from orchestrator.checkstatus.start import Starter
from orchestrator.checkstatus.trouble import Troubles
from orchestrator.doorbell import Bell
from orchestrator.engines.base import Ended, Engine, Knows, Lookup
from orchestrator.errors import EngineDown
from orchestrator.job import Job
from orchestrator.process import ProcessIdentity
from orchestrator.scheduler.schedule import KnownEngine
from orchestrator.state import EngineState, JobStatus
from orchestrator.store.database import StoreBusy, close_database, writing
from orchestrator.store.engines import set_health
from orchestrator.store.running import is_over, jobs_on, newest_job, not_started

log = logging.getLogger(__name__)

PROBE = 15.0  # seconds between two questions whether an idle engine is there
FIRST_RETRY, LAST_RETRY = 1.0, 30.0  # seconds until an engine that is down is asked again
REFRESH_PAUSE = 2.0  # seconds between two listings of an engine's jobs
SOONEST = 0.1  # seconds: a job that has just begun is looked at this soon
STORE_RETRY = 1.0  # seconds
RECORD_SOON = 0.005  # seconds: that something runs is recorded with the next end, where that comes so soon


class EngineWorker(threading.Thread):
    """Starts and checks the jobs of one engine until it is stopped.

    `changed()` is called when a job has ended, a CPU is free, or the engine's state or jobs are known anew.
    """

    def __init__(self, engine: Engine, host: str, me: ProcessIdentity, changed: Callable[[], None]) -> None:
        super().__init__(name=f"engine-{engine.name}", daemon=True)
        self.engine = engine
        self.state = EngineState.UNKNOWN
        self._troubles = Troubles(engine.name)
        self._starter = Starter(engine, host, me, self._troubles)
        self._checker = Checker(engine, self._troubles)
        self._changed = changed
        self._bell = Bell()
        self._stopping = False
        self._refresh_wanted = True
        self._down: EngineDown | None = None
        self._failures = 0
        self._refresh_failures = 0
        self._asked_for = 0  # the newest job when all of the engine's jobs were last listed
        self._unlisted: str | None = None  # why not all of its jobs could be listed
        self._reason: str | None = None  # in HEALTH
        self._complaint = ""
        # All due times are of the monotonic clock.
        self._retry_due = 0.0
        self._probe_due = 0.0
        self._refresh_due = 0.0

    def known(self) -> KnownEngine:
        """Tell the schedule step of this engine. For any thread."""
        return KnownEngine(
            state=self.state,
            lookup=self._lookup,
            ask=self.ask,
            queueing=self.engine.is_queueing(),
            intent=None if self.engine.mark_asks else self._starter.intent,
        )

    def _lookup(self, job: Job) -> Lookup:
        asked_for = self._asked_for  # before the engine's own answer, which may be of a later list than this
        found = self.engine.lookup(job)
        # Ids only grow, so this needs no clock, which may be set.
        return replace(found, knows=Knows.NO) if found.knows is Knows.ASK and job.id <= asked_for else found

    def ask(self) -> None:
        """Have the engine asked anew which jobs it has. For any thread."""
        self._refresh_wanted = True
        self._bell.ring()

    def ring(self) -> None:
        """There may be something to start or to cancel. For any thread."""
        self._bell.ring()

    def stop(self) -> None:
        """Ask the thread to end; it does after what it is doing now. For any thread."""
        self._stopping = True
        self._bell.ring()

    def run(self) -> None:
        """Start and check, until `stop`."""
        try:
            self._warm_up()
            while not self._stopping:
                pause = self._tick()
                if self._starter.has_begun():
                    pause = min(pause, RECORD_SOON)
                self._bell.wait(pause, self.engine.wait_fds())
                self.engine.linger()
            self._record_begun()
        finally:
            self.engine.close()
            close_database()

    def _warm_up(self) -> None:
        with self._going_on():
            self.engine.warm_up()

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """Complain of what goes wrong: nothing restarts a thread that dies, and its callers would hang for ever."""
        try:
            yield
        except StoreBusy as exc:
            self._complain(f"the database cannot serve now: {exc}")
        except Exception as exc:  # noqa: BLE001 - whatever it is
            self._complain(f"a fault of this program: {type(exc).__name__}: {exc}")

    def tick(self) -> float:
        """Do what is due, and leave nothing to be recorded; the seconds until something is due again."""
        pause = self._tick()
        self._record_begun()
        return pause

    def _record_begun(self) -> None:
        """Record what was started. Where that cannot be, the intents tell whoever comes next what to find out."""
        with self._going_on():
            if self._starter.give_up(self._starter.record()):
                self._changed()

    def _jobs(self) -> Sequence[Job]:
        return self._starter.as_begun(jobs_on(self.engine.name))

    def _tick(self) -> float:
        with self._going_on():
            jobs = self._jobs()
            if self._checker.time_out(jobs):
                jobs = self._jobs()
            try:
                if time.monotonic() < self._retry_due and self._down is not None:
                    self._do_without(jobs, self._down)
                else:
                    jobs = self._serve(jobs)
            except EngineDown as exc:
                self._fail(exc)
                self._do_without(self._jobs(), exc)
            return self._pause(jobs)
        return STORE_RETRY

    def _complain(self, what: str) -> None:
        if what != self._complaint:
            log.error("engine %s: %s; trying again", self.engine.name, what)
            self._complaint = what

    def _serve(self, jobs: Sequence[Job]) -> Sequence[Job]:
        now = time.monotonic()
        if self.state is not EngineState.UP or (now >= self._probe_due and not jobs):
            description = self.engine.describe()
            self._succeed(description)
        # What runs comes first: neither a start nor a list that cannot be had may keep its end from being seen.
        jobs, freed = self._check(jobs)
        if self._refresh_wanted and now >= self._refresh_due:
            self._refresh(now)
        if any(job.execution is None for job in jobs):
            freed |= self._starter.start(jobs)
            jobs = self._jobs() if freed or self.engine.mark_asks else self._starter.as_begun(jobs)
        freed |= self._tell_of_troubles(jobs)
        self._failures = 0  # only now: it may describe itself well, and fail at all else
        if jobs:
            self._probe_due = now + PROBE
        if freed:
            self._changed()
        return jobs

    def _check(self, jobs: Sequence[Job]) -> tuple[Sequence[Job], bool]:
        """See to what runs, and to what takes its place; the jobs after that, and whether a start freed a CPU."""
        found = self._checker.look(jobs)
        news = self._starter.has_begun() or any(isinstance(state, Ended) for state in found.values())
        # Starts, ends, what is placed after them, and often the intent to start that, share one commit.
        with writing() if news else contextlib.nullcontext():
            lost = self._starter.record()
            if self._checker.record(jobs, found):
                self._changed()
                jobs = jobs_on(self.engine.name)
        freed = self._starter.give_up(lost)
        self._checker.cancel(jobs, found)
        return self._jobs() if lost else jobs, freed

    def _refresh(self, now: float) -> None:
        self._refresh_wanted = False
        self._refresh_due = now + REFRESH_PAUSE
        newest = newest_job()
        try:
            self.engine.refresh()
        except EngineDown as exc:
            self._asked_for = 0
            self.engine.describe()  # raises where it does not answer at all
            self._refresh_wanted = True
            self._refresh_due = now + min(LAST_RETRY, REFRESH_PAUSE * 2 ** min(self._refresh_failures, 10))
            self._refresh_failures += 1
            if self._unlisted is None:
                log.warning("engine %s: not all of its jobs can be listed: %s; trying again", self.engine.name, exc)
            self._unlisted = f"not all of its jobs can be listed: {exc}"
        else:
            self._refresh_failures = 0
            self._unlisted = None
            self._asked_for = newest
        self._changed()

    def _tell_of_troubles(self, jobs: Sequence[Job]) -> bool:
        """Show operators what goes wrong with single jobs, and callers what that means to them; whether one ended."""
        self._troubles.keep_only(jobs)
        told = False
        for job in jobs:
            why = self._troubles.about(job)
            if why is not None:
                told |= self._checker.tell_without_engine([job], why)
        self._set_state(EngineState.UP, "; ".join(filter(None, (self._unlisted, self._troubles.told()))) or None)
        return told

    def _succeed(self, description: str) -> None:
        self._down = None
        self._probe_due = time.monotonic() + PROBE
        if self.state is not EngineState.UP:
            log.info("engine %s is up: %s", self.engine.name, description)
            self._refresh_wanted = True
            self._set_state(EngineState.UP, None)

    def _fail(self, exc: EngineDown) -> None:
        self._down = exc
        pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self._failures, 30)) * random.uniform(0.75, 1.25)
        self._failures += 1
        self._retry_due = time.monotonic() + pause
        if self.state is not EngineState.DOWN:
            log.warning("engine %s is down: %s", self.engine.name, exc)
        self._set_state(EngineState.DOWN, str(exc))

    def _set_state(self, state: EngineState, reason: str | None) -> None:
        is_new = state is not self.state
        if not is_new and state is EngineState.UP and reason == self._reason:
            return
        self.state, self._reason = state, reason
        set_health(self.engine.name, self.engine.kind, state, reason)
        if is_new:
            self._changed()

    def _do_without(self, jobs: Sequence[Job], down: EngineDown) -> None:
        """While the engine is down: jobs that have not left for it go back, callers of cancelled ones are told."""
        changed = self._checker.tell_without_engine(jobs, str(down))
        for job in jobs:
            if job.status == JobStatus.SCHEDULED and (job.starter is None or self._starter.take_intended(job)):
                changed |= not_started(job, f"engine {self.engine.name} is down: {down}")
        if changed:
            self._changed()

    def _pause(self, jobs: Sequence[Job]) -> float:
        now = time.monotonic()
        if self._down is not None and self._retry_due > now:
            pause = self._retry_due - now
        elif jobs:
            pause = min(_look_after(job, self.engine.poll) for job in jobs)
        else:
            pause = self._probe_due - now
        if self._refresh_wanted and self._down is None:
            pause = min(pause, self._refresh_due - now)
        for job in jobs:
            if job.timeout is not None and job.ending is None and not is_over(job):
                pause = min(pause, job.timeout - _age(job))
        return max(pause, 0.01)


def _look_after(job: Job, poll: float) -> float:
    """Give the seconds until a job is looked at again: young ones soon, old ones every `poll`."""
    if job.started_tick is None or is_over(job):
        return min(1.0, poll)
    return min(poll, max(SOONEST, _age(job) / 10))


def _age(job: Job) -> float:
    try:
        return age_of(job)
    except ValueError:  # a row that makes no sense
        return 0.0
