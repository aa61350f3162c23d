"""An engine's worker: ticks from placed to ended, and what it does while its engine is down."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.checkstatus import check as check_module
from orchestrator.checkstatus import trouble as trouble_module
from orchestrator.checkstatus import worker as worker_module
from orchestrator.checkstatus.worker import EngineWorker
from orchestrator.engines.base import Ended, Knows, Lookup
from orchestrator.engines.delphix import engine as engine_module
from orchestrator.errors import EngineDown, StartUnknown
from orchestrator.scheduler.schedule import schedule
from orchestrator.simulator import Simulator
from orchestrator.state import EngineState, JobStatus
from orchestrator.store.database import close_database, open_database
from orchestrator.store.engines import engine_states, seed_cpus
from orchestrator.store.models import Events, Queue
from orchestrator.store.taking import ask_end
from orchestrator.store.views import cpus_of_engines

from .fake import HOST, Clock, FakeEngine, a_dead_process, again, me, placed, queued
from .make import delphix

pytestmark = pytest.mark.usefixtures("store")
Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(worker_module, "time", made)
    monkeypatch.setattr(trouble_module, "time", made)
    return made


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def rung() -> list[str]:
    return []


@pytest.fixture
def worker(engine: FakeEngine, rung: list[str], clock: Clock) -> EngineWorker:
    return EngineWorker(engine, HOST, me(), lambda: rung.append("changed"))


def down(count: int = 1) -> list[Exception]:
    return [EngineDown("no answer") for _ in range(count)]


def tick_later(worker: EngineWorker, clock: Clock, seconds: float = 60.0) -> None:
    clock.now += seconds
    worker.tick()


def test_the_first_tick_asks_who_is_there_and_what_jobs_there_are(
    worker: EngineWorker, engine: FakeEngine, rung: list[str]
) -> None:
    assert worker.known().state is EngineState.UNKNOWN
    worker.tick()
    assert (engine.calls, worker.known().state) == (["describe", "refresh"], EngineState.UP)
    assert engine_states() == {"engine1": (EngineState.UP, None)}
    assert rung


def test_a_placed_job_is_started_and_watched_to_its_end(
    worker: EngineWorker, engine: FakeEngine, rung: list[str]
) -> None:
    job = placed()
    worker.tick()
    assert again(job).status == "RUNNING"
    engine.end("E1", JobStatus.FINISHED)
    rung.clear()
    worker.tick()
    assert (again(job).status, engine.started, rung) == ("FINISHED", [job.id], ["changed"])
    assert cpus_of_engines()["engine1"][0]["status"] == "FREE"


def test_what_runs_costs_one_question_a_tick(worker: EngineWorker, engine: FakeEngine) -> None:
    for number in range(1, 5):
        placed(f"N{number}", f"CPU{number}")
    worker.tick()
    engine.calls.clear()
    worker.tick()
    assert engine.calls == ["check"]


def test_a_job_lost_in_a_start_is_found_and_never_started_twice(
    worker: EngineWorker, engine: FakeEngine, clock: Clock
) -> None:
    job = placed()
    engine.loses_answers = True
    engine.fails["start"] = [StartUnknown("no answer")]
    worker.tick()
    assert (again(job).status, worker.state) == ("SCHEDULED", EngineState.DOWN)
    engine.found = "E1"
    tick_later(worker, clock)
    assert (again(job).status, again(job).execution, engine.started) == ("RUNNING", "E1", [job.id])


def test_an_engine_that_is_down_gives_back_what_it_has_not_begun_and_keeps_what_it_may_have(
    worker: EngineWorker, engine: FakeEngine
) -> None:
    lost, waiting = placed("a", "CPU1"), placed("b", "CPU2")
    engine.loses_answers = True
    engine.fails["start"] = [StartUnknown("no answer")]
    worker.tick()
    assert (again(lost).status, again(waiting).status) == ("SCHEDULED", "QUEUED")
    assert "engine engine1 is down" in str(again(waiting).reason)


def test_an_engine_that_is_down_is_told_and_asked_ever_less_often(
    worker: EngineWorker, engine: FakeEngine, clock: Clock
) -> None:
    engine.fails["describe"] = down(7)
    pauses = []
    for _ in range(7):
        pauses.append(worker.tick())
        clock.now += pauses[-1] + 0.001
    for pause, expected in zip(pauses, [1, 2, 4, 8, 16, 30, 30], strict=True):
        assert 0.7 * expected <= pause <= 1.3 * expected
    assert engine_states()["engine1"] == (EngineState.DOWN, "no answer")
    worker.tick()
    assert worker.state is EngineState.UP
    assert [event.move for event in Events.select()] == ["engine DOWN", "engine UP"]


def test_an_engine_that_is_down_is_not_asked_before_its_time(
    worker: EngineWorker, engine: FakeEngine, clock: Clock
) -> None:
    engine.fails["describe"] = down()
    worker.tick()
    worker.ring()
    worker.tick()
    assert engine.calls == ["describe"]


def test_an_engine_may_be_down_for_ever(worker: EngineWorker, engine: FakeEngine, clock: Clock) -> None:
    engine.fails["describe"] = down(1100)
    for _ in range(1100):
        tick_later(worker, clock)
    assert worker.tick() <= 40
    tick_later(worker, clock)
    assert worker.state is EngineState.UP


def test_an_engine_that_cannot_list_its_jobs_is_asked_ever_less_often_and_serves_what_it_has(
    worker: EngineWorker, engine: FakeEngine, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    job = placed()
    engine.fails["refresh"] = [EngineDown("GET /masking-jobs: status 403")] * 99
    asked = []
    for _ in range(600):
        before = engine.calls.count("refresh")
        worker.tick()
        asked += [clock.now] * (engine.calls.count("refresh") - before)
        clock.now += 0.5
    assert [later - earlier for earlier, later in pairwise(asked)][:6] == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    engine.end("E1", JobStatus.FINISHED)
    worker.tick()
    assert (again(job).status, worker.state) == ("FINISHED", EngineState.UP)
    told = "not all of its jobs can be listed: GET /masking-jobs: status 403"
    assert engine_states()["engine1"] == (EngineState.UP, told)
    assert caplog.text.count(told) == 1
    engine.fails.clear()
    tick_later(worker, clock)
    assert engine_states()["engine1"] == (EngineState.UP, None)


def test_trouble_with_one_job_is_shown_while_it_lasts_and_keeps_no_other_from_its_turn(
    worker: EngineWorker, engine: FakeEngine, clock: Clock
) -> None:
    first, second, third = placed("a"), placed("b", "CPU2"), placed("c", "CPU3")
    worker.tick()
    Queue.update(starter=f"{HOST}/{a_dead_process()}", status="SCHEDULED", execution=None).where(
        Queue.name == "c"
    ).execute()
    ask_end(first.id, JobStatus.CANCELLED, "by its caller")
    engine.end("E2", JobStatus.FINISHED)
    engine.fails = {
        "cancel": [EngineDown("POST /executions/1/cancel: status 500")] * 9,
        "find_start": [EngineDown("GET /executions: an execution without proper ids")] * 9,
    }
    fourth = placed("d", "CPU4")
    tick_later(worker, clock, 1)
    assert [again(job).status for job in (first, second, third, fourth)] == [
        "RUNNING", "FINISHED", "SCHEDULED", "RUNNING",
    ]  # fmt: skip
    state, why = engine_states()["engine1"]
    assert (state, worker.state) == (EngineState.UP, EngineState.UP)
    assert why == f"job {first.id} (a): cancel: POST /executions/1/cancel: status 500 (and 1 more)"
    engine.fails.clear()
    engine.found = "E3"
    tick_later(worker, clock, 20)
    assert engine_states()["engine1"] == (EngineState.UP, None)
    assert (again(third).execution, engine.cancelled) == ("E3", [first.id])


def test_an_end_is_told_at_once_also_where_the_engine_goes_down_right_after(
    worker: EngineWorker, engine: FakeEngine, rung: list[str]
) -> None:
    first = placed("a")
    worker.tick()
    placed("b", "CPU2")
    engine.end("E1", JobStatus.FINISHED)
    engine.loses_answers = True
    engine.fails["start"] = [StartUnknown("no answer")]
    rung.clear()
    worker.tick()
    assert (again(first).status, worker.state, len(rung)) == ("FINISHED", EngineState.DOWN, 2)


def test_a_caller_whose_cancel_the_engine_does_not_carry_out_is_told_after_a_while(
    worker: EngineWorker, engine: FakeEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = placed()
    worker.tick()
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    engine.fails["cancel"] = [EngineDown("status 500")] * 9
    worker.tick()
    assert again(job).status == "RUNNING"
    monkeypatch.setattr(check_module, "SILENT_ENGINE", -1.0)
    worker.tick()
    told = "by its caller; the engine does not confirm it, so the execution may still run: status 500"
    assert (again(job).status, again(job).reason) == ("CANCELLED", told)
    assert cpus_of_engines()["engine1"][0]["status"] == "RUNNING"
    engine.end("E1", JobStatus.CANCELLED)
    tick_later(worker, clock)
    assert cpus_of_engines()["engine1"][0]["status"] == "FREE"


def test_a_job_that_only_holds_its_cpu_any_more_costs_no_busy_loop(worker: EngineWorker, engine: FakeEngine) -> None:
    placed(timeout=0.001)
    worker.tick()
    engine.executions["E1"] = Ended(status=JobStatus.FAILED, reason="an odd status", may_run_on=True)
    worker.engine.poll = 5.0
    Queue.update(timeout=None).execute()
    worker.tick()
    Queue.update(timeout=0.001).execute()
    assert worker.tick() >= 0.9


def test_running_jobs_stay_while_their_engine_is_down(worker: EngineWorker, engine: FakeEngine, clock: Clock) -> None:
    job = placed()
    worker.tick()
    engine.fails["check"] = down()
    worker.tick()
    assert (again(job).status, worker.state) == ("RUNNING", EngineState.DOWN)
    engine.end("E1", JobStatus.FINISHED)
    tick_later(worker, clock)
    assert again(job).status == "FINISHED"


def test_a_timeout_is_asked_also_while_the_engine_is_down_and_told_once_it_is_silent_for_long(
    worker: EngineWorker, engine: FakeEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = placed(timeout=5)
    worker.tick()
    Queue.update(started_tick="another-boot 0.0", started_at="1999-01-01T00:00:00.000000Z").execute()
    engine.fails["check"] = down(9)
    worker.tick()
    assert (again(job).status, again(job).ending) == ("RUNNING", "TIMEOUT")
    monkeypatch.setattr(check_module, "SILENT_ENGINE", -1.0)
    worker.tick()  # not yet asked again: told all the same
    assert again(job).status == "TIMEOUT"
    assert cpus_of_engines()["engine1"][0]["status"] == "RUNNING"
    engine.fails.clear()
    engine.end("E1", JobStatus.CANCELLED)
    tick_later(worker, clock)
    assert cpus_of_engines()["engine1"][0]["status"] == "FREE"


def test_a_cancel_is_carried_to_the_engine(worker: EngineWorker, engine: FakeEngine) -> None:
    job = placed()
    worker.tick()
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    worker.tick()
    engine.end("E1", JobStatus.CANCELLED)
    worker.tick()
    assert (engine.cancelled[:1], again(job).status) == ([job.id], "CANCELLED")


def test_a_failed_job_is_tried_again_on_another_engine(worker: EngineWorker, engine: FakeEngine) -> None:
    other = FakeEngine("engine2")
    another = EngineWorker(other, HOST, me(), lambda: None)
    seed_cpus("engine1", 1)
    seed_cpus("engine2", 1)
    job = queued(retries=1)
    workers = {"engine1": worker, "engine2": another}
    for each in workers.values():
        each.tick()
    schedule({name: each.known() for name, each in workers.items()})
    first = again(job).engine
    for each in workers.values():
        each.tick()
    assert first is not None
    failing = {"engine1": engine, "engine2": other}.pop(first)
    failing.end("E1", JobStatus.FAILED, "rows rejected")
    workers[first].tick()
    schedule({name: each.known() for name, each in workers.items()})
    assert (again(job).status, {first, again(job).engine}) == ("SCHEDULED", {"engine1", "engine2"})


def test_an_idle_engine_is_asked_from_time_to_time_whether_it_is_there(
    worker: EngineWorker, engine: FakeEngine, clock: Clock
) -> None:
    worker.tick()
    pause = worker.tick()
    assert engine.calls == ["describe", "refresh"]
    assert 0 < pause <= worker_module.PROBE
    tick_later(worker, clock, worker_module.PROBE + 1)
    assert engine.calls == ["describe", "refresh", "describe"]


def test_an_engine_is_asked_anew_for_its_jobs_but_not_too_often(
    worker: EngineWorker, engine: FakeEngine, clock: Clock
) -> None:
    worker.tick()
    worker.known().ask()
    assert worker.tick() <= worker_module.REFRESH_PAUSE
    assert engine.calls.count("refresh") == 1
    tick_later(worker, clock, worker_module.REFRESH_PAUSE + 0.1)
    assert engine.calls.count("refresh") == 2


def test_a_job_that_an_engine_does_not_have_is_a_no_only_where_it_was_asked_after_the_job_came(
    worker: EngineWorker, engine: FakeEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the wall clock says: it may have been set back in between."""
    monkeypatch.setattr(engine, "lookup", lambda _: Lookup(Knows.ASK, "no job X"))
    old = queued("OLD")
    assert worker.known().lookup(old).knows is Knows.ASK
    worker.tick()
    assert worker.known().lookup(old) == Lookup(Knows.NO, "no job X")
    Queue.update(submitted_at="2999-01-01T00:00:00.000000Z").execute()
    assert worker.known().lookup(again(old)).knows is Knows.NO
    young = queued("YOUNG")
    Queue.update(submitted_at="1999-01-01T00:00:00.000000Z").execute()
    assert worker.known().lookup(again(young)).knows is Knows.ASK
    worker.ask()
    tick_later(worker, clock)
    assert worker.known().lookup(again(young)).knows is Knows.NO


def test_a_job_that_an_engine_does_not_have_is_no_no_while_not_all_of_its_jobs_can_be_listed(
    worker: EngineWorker, engine: FakeEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "lookup", lambda _: Lookup(Knows.ASK, "no job X"))
    job = queued()
    worker.tick()
    engine.fails["refresh"] = [EngineDown("environment HR: status 500")]
    worker.ask()
    tick_later(worker, clock)
    assert worker.known().lookup(job).knows is Knows.ASK
    tick_later(worker, clock)
    assert worker.known().lookup(job).knows is Knows.NO


def test_what_an_engine_has_or_can_never_have_is_told_at_once(
    worker: EngineWorker, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker.known().lookup(queued()).knows is Knows.YES
    monkeypatch.setattr(engine, "lookup", lambda _: Lookup(Knows.NO, "runs no commands"))
    assert worker.known().lookup(queued("B")).knows is Knows.NO


def test_an_execution_that_vanished_is_seen_also_where_each_look_is_a_process_of_its_own(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "VANISHED_WAIT", 0.0)
    job = placed()

    def look() -> None:
        once = EngineWorker(delphix(simulator.url), HOST, me(), lambda: None)
        once.tick()
        once.engine.close()

    look()
    simulator.fault(vanish=int(again(job).execution or 0))
    look()
    assert again(job).status == "RUNNING"
    look()
    assert (again(job).status, "vanished" in str(again(job).reason)) == ("FAILED", True)


def test_a_young_job_is_looked_at_soon_and_an_old_one_every_poll(worker: EngineWorker) -> None:
    placed()
    worker.tick()
    assert worker.tick() <= 0.2
    Queue.update(started_tick="another-boot 0.0", started_at="1999-01-01T00:00:00.000000Z").execute()
    assert worker.tick() == pytest.approx(FakeEngine.poll)


def test_what_another_living_process_is_starting_is_left_alone(engine: FakeEngine, worker: EngineWorker) -> None:
    job = placed()
    Queue.update(starter=f"{HOST}/{me()}", start_mark="m", starting_tick="another-boot 0.0").execute()
    another = EngineWorker(engine, HOST, a_dead_process(), lambda: None)
    another.tick()
    assert (engine.started, again(job).status) == ([], "SCHEDULED")
    worker.tick()
    assert "find_start" in engine.calls


def test_a_database_that_is_held_locked_is_tried_again(store: Path, worker: EngineWorker, engine: FakeEngine) -> None:
    job = placed()
    close_database()
    open_database(f"sqlite:///{store}", busy_timeout=0.02)
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert worker.tick() == worker_module.STORE_RETRY
        other.execute("ROLLBACK")
    worker.tick()
    worker.tick()
    assert (again(job).status, engine.started) == ("RUNNING", [job.id])


def test_the_thread_wakes_at_a_ring_and_ends_when_it_is_stopped(engine: FakeEngine, eventually: Wait) -> None:
    worker = EngineWorker(engine, HOST, me(), lambda: None)
    worker.start()
    eventually(lambda: worker.state is EngineState.UP)
    job = placed()
    worker.ring()
    eventually(lambda: again(job).status == "RUNNING")
    worker.stop()
    worker.join(5)
    assert not worker.is_alive()
    assert threading.active_count() >= 1
