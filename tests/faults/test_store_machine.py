"""Any interleaving of steps by several workers, with rows that they read long ago, keeps what must hold."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.errors import UsageError
from orchestrator.job import Job
from orchestrator.state import ENDED, JOB_MOVES, CpuStatus, JobStatus
from orchestrator.store.database import close_database, open_database
from orchestrator.store.engines import add_cpus, free_deserted, remove_cpu, seed_cpus
from orchestrator.store.models import Engines, Queue, database, tuples_of
from orchestrator.store.moves import jobs_where
from orchestrator.store.placing import capacities, fail_waiting, hold, place, unhold, waiting_jobs
from orchestrator.store.releasing import jobs_to_release, record_released
from orchestrator.store.running import (
    adopt,
    doubt,
    ended,
    free_cpu,
    intend_start,
    is_over,
    jobs_on,
    not_started,
    progress,
    started,
)
from orchestrator.store.taking import Arrival, Taken, ask_end, take
from tests.faults.points import WHOLE
from tests.unit.make import an_arrival

HOST, ENGINES = "host", ("engine1", "engine2")
WORKERS = st.sampled_from(("worker1", "worker2", "worker3"))
ENDINGS = st.sampled_from(sorted(ENDED - {JobStatus.REJECTED}))


class Store(RuleBasedStateMachine):
    """Three workers, who act on jobs as they read them at some time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.url = f"sqlite:///{self.folder}/orchestrator.db"
        self.read: dict[str, list[Job]] = {"worker1": [], "worker2": [], "worker3": []}
        self.over: dict[int, str] = {}  # the status of those that were seen ended
        self.claims: dict[str, Arrival] = {}
        self.executions = 0
        open_database(self.url)

    def teardown(self) -> None:
        close_database()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        for engine in ENGINES:
            seed_cpus(engine, 2)

    def one(self, data: st.DataObject, worker: str, *statuses: JobStatus) -> Job | None:
        """A job as that worker read it, perhaps long ago."""
        jobs = [job for job in self.read[worker] if not statuses or job.status in statuses]
        return data.draw(st.sampled_from(jobs)) if jobs else None

    @rule(name=st.sampled_from("ABCDEF"), retries=st.integers(0, 2), priority=st.integers(0, 100))
    def arrives(self, name: str, retries: int, priority: int) -> None:
        arrival = an_arrival(name, host=HOST, light=uuid4().hex, priority=priority)
        request = arrival.request
        assert request is not None
        arrival = an_arrival(
            name, host=HOST, light=uuid4().hex, priority=priority,
            request=type(request)(job=name, retries=retries), claim=arrival.claim,
        )  # fmt: skip
        [(taken, _)] = take([arrival])
        waits = len(jobs_where(Queue.name == name, Queue.ended_at.is_null()))
        assert waits == 1
        if taken is Taken.QUEUED:
            self.claims[arrival.claim] = arrival

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def is_taken_again(self, data: st.DataObject) -> None:
        """Intake crashed between the row and the removal of the file."""
        claim = data.draw(st.sampled_from(sorted(self.claims)))
        assert take([self.claims[claim]]) == [(Taken.QUEUED, None)]

    @rule(worker=WORKERS)
    def reads(self, worker: str) -> None:
        self.read[worker] = jobs_where(Queue.id > 0)

    @rule(worker=WORKERS, data=st.data())
    def places(self, worker: str, data: st.DataObject) -> None:
        waiting = self.read[worker] or list(waiting_jobs(4))
        free = [(engine, cpu) for engine, room in capacities().items() for cpu in room.free]
        rows = free + [(engine, "CPU1") for engine in ENGINES]
        placings = [(job, data.draw(st.sampled_from(rows))) for job in waiting[:3]]
        place(placings)

    @rule(worker=WORKERS, data=st.data())
    def intends(self, worker: str, data: st.DataObject) -> None:
        if job := self.one(data, worker, JobStatus.SCHEDULED):
            intended = intend_start(job, worker, None)
            if intended is not None:
                self.read[worker] = [intended if each.id == job.id else each for each in self.read[worker]]

    @rule(worker=WORKERS, data=st.data())
    def starts(self, worker: str, data: st.DataObject) -> None:
        if job := self.one(data, worker, JobStatus.SCHEDULED):
            self.executions += 1
            started(job, f"E{self.executions}")

    @rule(worker=WORKERS, data=st.data())
    def does_not_start(self, worker: str, data: st.DataObject) -> None:
        if job := self.one(data, worker, JobStatus.SCHEDULED):
            not_started(job, "it could not be reached")

    @rule(worker=WORKERS, data=st.data(), to=ENDINGS, may_retry=st.booleans(), cpu_is_free=st.booleans())
    def ends(self, worker: str, data: st.DataObject, to: JobStatus, may_retry: bool, cpu_is_free: bool) -> None:
        job = self.one(data, worker, JobStatus.RUNNING, JobStatus.SCHEDULED)
        if job is not None and to in JOB_MOVES[JobStatus(job.status)]:
            ended(job, to, "a reason", may_retry=may_retry and cpu_is_free, cpu_is_free=cpu_is_free)

    @rule(worker=WORKERS, data=st.data())
    def watches(self, worker: str, data: st.DataObject) -> None:
        if job := self.one(data, worker, JobStatus.RUNNING):
            progress(job, 1, 2)
            doubt(job, data.draw(st.booleans()))

    @rule(worker=WORKERS, data=st.data())
    def settles(self, worker: str, data: st.DataObject) -> None:
        """What ended while nobody could ask its engine gets its execution, and gives its CPU back."""
        for job in jobs_on(data.draw(st.sampled_from(ENGINES))):
            if is_over(job):
                if job.execution is None:
                    self.executions += 1
                    adopt(job, f"E{self.executions}")
                free_cpu(job, "it has ended")

    @rule(worker=WORKERS, data=st.data(), to=st.sampled_from((JobStatus.CANCELLED, JobStatus.TIMEOUT)))
    def is_asked_to_end(self, worker: str, data: st.DataObject, to: JobStatus) -> None:
        if job := self.one(data, worker):
            ask_end(job.id, to, "asked")

    @rule(worker=WORKERS, data=st.data())
    def is_held_or_not(self, worker: str, data: st.DataObject) -> None:
        if job := self.one(data, worker):
            data.draw(st.sampled_from((hold, unhold)))(job.id)

    @rule(worker=WORKERS, data=st.data())
    def fails_waiting(self, worker: str, data: st.DataObject) -> None:
        if job := self.one(data, worker, JobStatus.QUEUED):
            fail_waiting(job, "no engine knows it")

    @rule(data=st.data())
    def is_released(self, data: st.DataObject) -> None:
        if jobs := jobs_to_release(HOST):
            record_released([(data.draw(st.sampled_from(jobs)).id, "the light was rewritten")])

    @rule(engine=st.sampled_from(ENGINES), more=st.booleans())
    def capacity_changes(self, engine: str, more: bool) -> None:
        rows = [cpu for (cpu,) in tuples_of(Engines.select(Engines.cpu).where(Engines.engine == engine))]
        if more and len(rows) < 4:
            add_cpus(engine, 1)
        elif rows:
            with contextlib.suppress(UsageError):
                remove_cpu(engine, rows[-1])
        free_deserted()

    @rule()
    def all_are_killed(self) -> None:
        """The rows are what is left; workers keep theirs, as one that was stopped for long would."""
        close_database()
        open_database(self.url)

    @invariant()
    def a_cpu_is_busy_just_while_one_job_holds_it(self) -> None:
        cpus = list(tuples_of(Engines.select(Engines.engine, Engines.cpu, Engines.status, Engines.job_id)))
        held = [job_id for *_, job_id in cpus if job_id is not None]
        assert len(held) == len(set(held))
        jobs = {job.id: job for job in jobs_where(Queue.id > 0)}
        for engine, cpu, status, job_id in cpus:
            assert (status == CpuStatus.FREE) == (job_id is None), (engine, cpu, status, job_id)
            if job_id is not None:
                job = jobs[job_id]
                assert (job.engine, job.cpu) == (engine, cpu)
                assert job.status in (JobStatus.SCHEDULED, JobStatus.RUNNING) or job.kept_since is not None
        for job in jobs.values():
            if job.status in (JobStatus.SCHEDULED, JobStatus.RUNNING):
                assert job.id in held, job

    @invariant()
    def no_engine_has_more_jobs_than_cpus(self) -> None:
        for engine, room in capacities().items():
            assert room.jobs <= room.cpus, engine

    @invariant()
    def statuses_change_by_legal_moves_only(self) -> None:
        now: dict[int, str] = {}
        legal = {f"{was} -> {to}" for was, tos in JOB_MOVES.items() for to in tos}
        for job_id, move in database.execute_sql("SELECT job_id, move FROM EVENTS ORDER BY id").fetchall():
            if job_id is None or "-> " not in move:
                continue
            was, _, to = move.rpartition("-> ")
            assert (now.get(job_id) is None and not was) or move in legal, move
            assert was.strip() == now.get(job_id, ""), (job_id, move)
            now[job_id] = to
        assert now == {job.id: job.status for job in jobs_where(Queue.id > 0)}

    @invariant()
    def what_has_ended_stays_ended(self) -> None:
        jobs = {job.id: job for job in jobs_where(Queue.id > 0)}
        for job_id, status in self.over.items():
            assert jobs[job_id].status == status
        self.over |= {job.id: job.status for job in jobs.values() if job.ended_at is not None}
        assert all((job.ended_at is not None) == (job.status in ENDED) for job in jobs.values())
        assert all(job.status != JobStatus.SCHEDULING for job in jobs.values())

    @invariant()
    def each_claim_is_one_row_and_each_name_one_active_job(self) -> None:
        rows = jobs_where(Queue.id > 0)
        claims = [job.claim for job in rows]
        assert len(claims) == len(set(claims)) and set(self.claims) <= set(claims)
        active = [job.name for job in rows if job.ended_at is None]
        assert len(active) == len(set(active))


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=600 if WHOLE else 12,
    stateful_step_count=60 if WHOLE else 40,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
