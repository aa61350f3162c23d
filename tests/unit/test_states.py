"""The table of states, and the one door through which every change of state goes."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.state import ACTIVE, CPU_MOVES, ENDED, JOB_MOVES, CpuStatus, JobStatus
from orchestrator.store.database import close_database, writing
from orchestrator.store.models import Engines, Queue
from orchestrator.store.moves import move_cpu, move_job
from orchestrator.store.views import events_of

from .make import again, queued

JOB_STORY = {
    (JobStatus.QUEUED, JobStatus.SCHEDULING): "a scheduler takes a waiting job up",
    (JobStatus.QUEUED, JobStatus.HELD): "an operator sets a waiting job aside",
    (JobStatus.QUEUED, JobStatus.CANCELLED): "a waiting job is cancelled at once",
    (JobStatus.QUEUED, JobStatus.FAILED): "no engine can ever run a waiting job",
    (JobStatus.HELD, JobStatus.QUEUED): "an operator lets a held job wait again",
    (JobStatus.HELD, JobStatus.CANCELLED): "a held job is cancelled at once",
    (JobStatus.SCHEDULING, JobStatus.SCHEDULED): "a job has got its CPU",
    (JobStatus.SCHEDULING, JobStatus.QUEUED): "the CPU was taken meanwhile",
    (JobStatus.SCHEDULED, JobStatus.RUNNING): "the engine gave an execution",
    (JobStatus.SCHEDULED, JobStatus.QUEUED): "the start surely did not reach the engine",
    (JobStatus.SCHEDULED, JobStatus.FAILED): "the engine refused the start",
    (JobStatus.SCHEDULED, JobStatus.CANCELLED): "a job is cancelled before it runs",
    (JobStatus.SCHEDULED, JobStatus.TIMEOUT): "a job times out before its start is known",
    (JobStatus.RUNNING, JobStatus.FINISHED): "the engine proved success",
    (JobStatus.RUNNING, JobStatus.FAILED): "the execution failed",
    (JobStatus.RUNNING, JobStatus.CANCELLED): "a running job was cancelled",
    (JobStatus.RUNNING, JobStatus.TIMEOUT): "a running job took too long",
    (JobStatus.RUNNING, JobStatus.QUEUED): "a failed attempt is tried again",
}
CPU_STORY = {
    (CpuStatus.FREE, CpuStatus.JUST_INSERTED): "a job is placed on a free CPU",
    (CpuStatus.JUST_INSERTED, CpuStatus.RUNNING): "the placed job runs",
    (CpuStatus.JUST_INSERTED, CpuStatus.FREE): "the placed job went back",
    (CpuStatus.JUST_INSERTED, CpuStatus.FAILED): "the placed job could not be started",
    (CpuStatus.RUNNING, CpuStatus.SUCCEEDED): "the execution ended well",
    (CpuStatus.RUNNING, CpuStatus.FAILED): "the execution did not end well",
    (CpuStatus.RUNNING, CpuStatus.FREE): "the execution went back",
    (CpuStatus.SUCCEEDED, CpuStatus.FREE): "the CPU is free after a success",
    (CpuStatus.FAILED, CpuStatus.FREE): "the CPU is free after a failure",
}


def test_the_story_told_here_is_the_whole_table_of_jobs() -> None:
    assert set(JOB_STORY) == {(was, to) for was, all_to in JOB_MOVES.items() for to in all_to}


def test_the_story_told_here_is_the_whole_table_of_cpus() -> None:
    assert set(CPU_STORY) == {(was, to) for was, all_to in CPU_MOVES.items() for to in all_to}


def test_nothing_leads_out_of_an_end() -> None:
    assert not ENDED & set(JOB_MOVES)
    assert set(JOB_MOVES) == ACTIVE


def put(job_id: int, status: JobStatus) -> None:
    Queue.update(status=status.value).where(Queue.id == job_id).execute()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("was", "to"), JOB_STORY, ids=JOB_STORY.values())
def test_a_legal_move_of_a_job_is_made_once_and_told_in_events(was: JobStatus, to: JobStatus) -> None:
    job = queued()
    put(job.id, was)
    with writing():
        assert move_job(job.id, was, to, "because", reason="because", engine="engine1", cpu="CPU1")
        assert not move_job(job.id, was, to, "again", reason="again")
    moved = again(job)
    assert (moved.status, moved.reason, moved.ended_at is not None) == (to, "because", to in ENDED)
    told = events_of(job.id)[1:]
    assert [(each["move"], each["why"], each["engine"], each["cpu"]) for each in told] == [
        (f"{was} -> {to}", "because", "engine1", "CPU1")
    ]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("was", "to"), [(was, to) for was in JobStatus for to in JobStatus if was in JOB_MOVES and to not in JOB_MOVES[was]]
)
def test_a_move_of_a_job_that_is_not_in_the_table_is_a_mistake_of_the_program(was: JobStatus, to: JobStatus) -> None:
    job = queued()
    put(job.id, was)
    with pytest.raises(AssertionError, match=f"{was} -> {to}"), writing():
        move_job(job.id, was, to)
    assert again(job).status == was
    assert len(events_of(job.id)) == 1


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("was", sorted(ENDED))
def test_no_move_leads_out_of_an_end(was: JobStatus) -> None:
    job = queued()
    put(job.id, was)
    for to in JobStatus:
        with pytest.raises((AssertionError, KeyError)), writing():
            move_job(job.id, was, to)
    assert again(job).status == was


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("was", "to"), CPU_STORY, ids=CPU_STORY.values())
def test_a_legal_move_of_a_cpu_is_made_once_and_only_for_the_job_on_it(was: CpuStatus, to: CpuStatus) -> None:
    Engines.insert(engine="engine1", cpu="CPU1", status=was.value, job_id=7).execute()
    cpu = ("engine1", "CPU1")
    assert not move_cpu(cpu, was, to, was=8, holds=None)
    assert not move_cpu(cpu, was, to, was=None, holds=None)
    assert not move_cpu(("engine2", "CPU1"), was, to, was=7, holds=None)
    assert move_cpu(cpu, was, to, was=7, holds=9)
    assert not move_cpu(cpu, was, to, was=7, holds=None)
    row = Engines.get(Engines.engine == "engine1")
    assert (row.status, row.job_id) == (to, 9)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("was", "to"), [(was, to) for was in CpuStatus for to in CpuStatus if to not in CPU_MOVES[was]]
)
def test_a_move_of_a_cpu_that_is_not_in_the_table_is_a_mistake_of_the_program(was: CpuStatus, to: CpuStatus) -> None:
    Engines.insert(engine="engine1", cpu="CPU1", status=was.value, job_id=7).execute()
    with pytest.raises(AssertionError, match=f"{was} -> {to}"):
        move_cpu(("engine1", "CPU1"), was, to, was=7, holds=7)
    assert Engines.get(Engines.engine == "engine1").status == was


@pytest.mark.usefixtures("store")
def test_the_event_is_written_with_the_move_or_neither_is() -> None:
    job = queued()

    def crash() -> None:
        with writing():
            assert move_job(job.id, JobStatus.QUEUED, JobStatus.SCHEDULING)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert again(job).status == JobStatus.QUEUED
    assert len(events_of(job.id)) == 1


def test_nobody_sees_a_move_without_its_event(store: Path) -> None:
    job = queued()
    with closing(sqlite3.connect(store)) as other, writing():
        move_job(job.id, JobStatus.QUEUED, JobStatus.SCHEDULING)
        assert other.execute("SELECT status FROM QUEUE").fetchall() == [("QUEUED",)]
        assert other.execute("SELECT count(*) FROM EVENTS").fetchall() == [(1,)]
    assert len(events_of(job.id)) == 2


@pytest.mark.usefixtures("store")
def test_of_many_movers_one_wins() -> None:
    job = queued()
    won: list[bool] = []

    def mover() -> None:
        with writing():
            won.append(move_job(job.id, JobStatus.QUEUED, JobStatus.SCHEDULING))
        close_database()

    movers = [threading.Thread(target=mover) for _ in range(8)]
    for each in movers:
        each.start()
    for each in movers:
        each.join()
    assert sorted(won) == [False] * 7 + [True]
    assert len(events_of(job.id)) == 2
