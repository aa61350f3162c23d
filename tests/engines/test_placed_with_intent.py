"""Jobs that are placed together with the intent to start them, where the engine need not be asked anything before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.checkstatus.worker import EngineWorker
from orchestrator.errors import EngineDown
from orchestrator.scheduler.schedule import schedule
from orchestrator.state import JobStatus
from orchestrator.store.database import writing
from orchestrator.store.engines import seed_cpus
from orchestrator.store.models import Queue
from orchestrator.store.taking import ask_end
from orchestrator.store.views import cpus_of_engines

from .fake import HOST, LocalEngine, again, me, queued

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def engine() -> LocalEngine:
    return LocalEngine()


@pytest.fixture
def worker(engine: LocalEngine) -> EngineWorker:
    made = EngineWorker(engine, HOST, me(), lambda: None)
    seed_cpus("engine1", 2)
    made.tick()
    return made


def place_all(worker: EngineWorker) -> None:
    schedule({"engine1": worker.known()})


def test_a_job_is_placed_and_meant_to_be_started_at_once_and_then_started_once(
    worker: EngineWorker, engine: LocalEngine
) -> None:
    job = queued()
    place_all(worker)
    assert (again(job).status, again(job).starter, again(job).attempts) == ("SCHEDULED", f"{HOST}/{me()}", 1)
    assert engine.started == []
    worker.tick()
    worker.tick()
    assert (again(job).status, again(job).execution, engine.started) == ("RUNNING", "E1", [job.id])
    assert "find_start" not in engine.calls


def test_what_was_placed_in_a_transaction_that_failed_is_not_started(worker: EngineWorker, engine: LocalEngine) -> None:
    job = queued()
    with pytest.raises(ZeroDivisionError), writing():
        place_all(worker)
        _ = 1 / 0
    worker.tick()
    assert (again(job).status, engine.started) == ("QUEUED", [])
    place_all(worker)
    worker.tick()
    assert (again(job).status, engine.started) == ("RUNNING", [job.id])


def test_a_daemon_that_died_after_the_placing_leaves_a_job_that_is_surely_not_started(
    worker: EngineWorker, engine: LocalEngine
) -> None:
    job = queued()
    schedule({"engine1": worker.known()})
    after_a_restart = EngineWorker(engine, HOST, me(), lambda: None)
    after_a_restart.tick()
    assert (again(job).status, engine.started) == ("QUEUED", [])
    assert "find_start" in engine.calls


def test_a_job_that_is_cancelled_before_it_was_started_is_not(worker: EngineWorker, engine: LocalEngine) -> None:
    job = queued()
    place_all(worker)
    assert ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    worker.tick()
    assert (again(job).status, again(job).reason, engine.started) == ("CANCELLED", "by its caller", [])
    assert [cpu["status"] for cpu in cpus_of_engines()["engine1"]] == ["FREE", "FREE"]


def test_a_job_goes_back_where_its_engine_is_down_before_it_was_started(
    worker: EngineWorker, engine: LocalEngine
) -> None:
    job, other = queued("a"), queued("b")
    place_all(worker)
    engine.fails["start"] = [EngineDown("no room")]
    worker.tick()
    assert [again(each).status for each in (job, other)] == ["QUEUED", "QUEUED"]
    assert engine.started == []


def test_a_row_that_was_changed_meanwhile_is_not_started_by_an_old_intent(
    worker: EngineWorker, engine: LocalEngine
) -> None:
    job = queued()
    place_all(worker)
    Queue.update(attempts=7).where(Queue.id == job.id).execute()
    worker.tick()
    assert engine.started == []


def test_a_job_that_was_tried_meanwhile_is_not_placed_as_the_same_attempt(
    worker: EngineWorker, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queued()
    known = worker.known()

    def tried_meanwhile(*_: object) -> object:
        Queue.update(attempts=3).where(Queue.id == job.id).execute()
        return engine.lookup(job)

    schedule({"engine1": replace(known, lookup=tried_meanwhile)})  # type: ignore[arg-type]
    assert again(job).status == "QUEUED"
    place_all(worker)
    assert (again(job).status, again(job).attempts) == ("SCHEDULED", 4)
