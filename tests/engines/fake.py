"""An engine in memory: it does what a test tells it, and tells what it was asked; and rows to run on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestrator.checkstatus.check import Checker
from orchestrator.engines.base import Ended, Engine, Knows, Lookup, Running, State
from orchestrator.job import Job, JobRequest
from orchestrator.process import ProcessIdentity, identify
from orchestrator.settings import EngineSettings
from orchestrator.state import JobStatus
from orchestrator.store.engines import seed_cpus
from orchestrator.store.models import Queue
from orchestrator.store.placing import place
from orchestrator.store.running import jobs_on
from orchestrator.store.taking import Arrival, take
from orchestrator.store.views import job_by_id

from .make import settings_in

HOST = "host"


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakeEngine(Engine):
    """Starts everything at once; `fails` names methods that raise, once for each exception in their list."""

    poll = 5.0

    def __init__(self, name: str = "engine1") -> None:
        super().__init__(
            EngineSettings(name=name, kind="fake", cpus=None, options={}, where=""), settings_in(Path("/nowhere"))
        )
        self.fails: dict[str, list[Exception]] = {}
        self.calls: list[str] = []
        self.executions: dict[str, State] = {}
        self.started: list[int] = []  # ids of jobs
        self.found: str | None = None  # what find_start gives
        self.others: set[str] = set()  # what find_start was told
        self.cancelled: list[int] = []
        self.forgotten: list[int] = []
        self.loses_answers = False

    def _do(self, method: str) -> None:
        self.calls.append(method)
        if self.fails.get(method):
            raise self.fails[method].pop(0)

    def describe(self) -> str:
        self._do("describe")
        return "a fake"

    def lookup(self, job: Job) -> Lookup:
        return Lookup(Knows.YES)

    def refresh(self) -> None:
        self._do("refresh")

    def mark(self, job: Job) -> str | None:
        self._do("mark")
        return f"mark of {job.id}"

    def start(self, job: Job) -> str:
        intended = again(job)  # what somebody would find who looked now
        mark = f"mark of {job.id}" if self.mark_asks else None
        assert (intended.starter, intended.start_mark) == (job.starter, mark), "start before its intent"
        if not self.loses_answers:
            self._do("start")
        self.started.append(job.id)
        execution = f"E{len(self.started)}"
        self.executions[execution] = Running()
        if self.loses_answers:
            self._do("start")
        return execution

    def find_start(self, job: Job, others: Iterable[str]) -> str | None:
        self.others = set(others)
        self._do("find_start")
        return self.found

    def check(self, jobs: Sequence[Job]) -> Mapping[int, State]:
        self._do("check")
        found = {job.id: self.executions.get(job.execution or "") for job in jobs}  # "": of starts that are lost
        return {job_id: state for job_id, state in found.items() if state is not None}

    def cancel(self, job: Job) -> None:
        self._do("cancel")
        self.cancelled.append(job.id)

    def forget(self, job: Job) -> None:
        self.forgotten.append(job.id)

    def end(self, execution: str, status: JobStatus, reason: str | None = None) -> None:
        """Have an execution end."""
        self.executions[execution] = Ended(status=status, reason=reason)


class LocalEngine(FakeEngine):
    """The same, asked nothing before a start, so that jobs are placed with the intent to start them."""

    mark_asks = False


def me() -> ProcessIdentity:
    """Name this process."""
    found = identify(os.getpid())
    assert found is not None
    return found


def a_dead_process() -> ProcessIdentity:
    """Name one that had our pid before us."""
    return ProcessIdentity(os.getpid(), me().start - 1, me().boot)


def check(checker: Checker) -> bool:
    """Do the whole step check for what is on engine1, as a worker does; whether anything ended."""
    jobs = jobs_on("engine1")
    found = checker.look(jobs)
    ended_one = checker.record(jobs, found)
    checker.cancel(jobs, found)
    return ended_one


def queued(name: str = "MASK_CRM", *, timeout: float | None = None, **request: Any) -> Job:
    """Take a job file; its row."""
    claim = uuid4().hex
    asked = JobRequest(**{"job": name} | request)
    take([Arrival(host=HOST, spool="default", name=name, claim=claim, request=asked, timeout=timeout)])
    return again(Queue.get(Queue.claim == claim).id)


def placed(name: str = "MASK_CRM", cpu: str = "CPU1", **fields: Any) -> Job:
    """Take a job file and put it on a CPU of engine1; its row."""
    seed_cpus("engine1", 4)
    job = queued(name, **fields)
    assert place([(job, ("engine1", cpu))]) == 1
    return again(job)


def again(job: Job | int) -> Job:
    """Read a job's row anew."""
    found = job_by_id(job if isinstance(job, int) else job.id)
    assert found is not None
    return found
