"""Step start: one attempt is never started twice, and a start of unknown outcome is resolved, not repeated."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.checkstatus import trouble as trouble_module
from orchestrator.checkstatus.start import Starter
from orchestrator.engines.base import StartLost
from orchestrator.errors import EngineDown, LoginRefused, StartRefused, StartUnknown
from orchestrator.job import Job
from orchestrator.state import JobStatus
from orchestrator.store.engines import seed_cpus
from orchestrator.store.running import ended, intend_start, jobs_on, not_started, started
from orchestrator.store.taking import ask_end
from orchestrator.store.views import cpus_of_engines

from .fake import HOST, Clock, FakeEngine, a_dead_process, again, me, placed

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def starter(engine: FakeEngine) -> Starter:
    return Starter(engine, HOST, me())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(trouble_module, "time", made)
    return made


def step(starter: Starter) -> bool:
    return starter.start(jobs_on("engine1"))


def cpu1() -> str | None:
    return cpus_of_engines()["engine1"][0]["status"]


def intended_by(starter: str, **fields: Any) -> Job:
    job = placed(**fields)
    assert intend_start(job, starter, f"mark of {job.id}")
    return again(job)


def test_the_intent_is_durable_before_the_start_and_the_execution_after_it(
    engine: FakeEngine, starter: Starter
) -> None:
    job = placed()  # FakeEngine.start looks whether the intent is there
    step(starter)
    begun = again(job)
    assert (begun.status, begun.execution, begun.starter) == ("RUNNING", "E1", f"{HOST}/{me()}")
    assert engine.calls == ["mark", "start"]
    step(starter)
    assert engine.started == [job.id]


def test_a_refused_start_fails_the_job_and_frees_its_cpu(engine: FakeEngine, starter: Starter) -> None:
    job = placed()
    engine.fails["start"] = [StartRefused("the engine refused: status 409")]
    assert step(starter)
    assert (again(job).status, again(job).reason) == ("FAILED", "the engine refused: status 409")
    assert (cpu1(), engine.started, engine.forgotten) == ("FREE", [], [job.id])


def test_a_job_that_is_gone_from_the_engine_fails_before_it_is_started(engine: FakeEngine, starter: Starter) -> None:
    job = placed()
    engine.fails["mark"] = [StartRefused("no longer has it")]
    step(starter)
    assert (again(job).status, again(job).attempts, again(job).starter) == ("FAILED", 0, None)


def test_a_refused_start_is_tried_again_where_retries_are_left(engine: FakeEngine, starter: Starter) -> None:
    job = placed(retries=1)
    engine.fails["start"] = [StartRefused("busy")]
    step(starter)
    assert (again(job).status, again(job).tried_engines == {"engine1"}) == ("QUEUED", True)


@pytest.mark.parametrize("down", [EngineDown("refused"), LoginRefused("401")])
def test_an_engine_that_is_down_at_the_start_gives_the_job_back(
    engine: FakeEngine, starter: Starter, down: EngineDown
) -> None:
    job = placed()
    engine.fails["start"] = [down]
    with pytest.raises(EngineDown):
        step(starter)
    back = again(job)
    assert (back.status, back.engine, back.starter, cpu1()) == ("QUEUED", None, None, "FREE")
    assert "engine engine1 could not be reached" in str(back.reason)


def test_an_engine_that_is_down_before_the_intent_leaves_the_job_placed(engine: FakeEngine, starter: Starter) -> None:
    job = placed()
    engine.fails = {"mark": [EngineDown("no answer")], "describe": [EngineDown("no answer")]}
    with pytest.raises(EngineDown):
        step(starter)
    assert (again(job).status, again(job).starter, again(job).attempts) == ("SCHEDULED", None, 0)


def test_a_start_without_an_answer_is_looked_for_and_never_sent_again(
    engine: FakeEngine, starter: Starter, clock: Clock
) -> None:
    job = placed()
    engine.loses_answers = True
    engine.fails["start"] = [StartUnknown("no answer")]
    with pytest.raises(EngineDown):
        step(starter)
    assert (again(job).status, again(job).starter) == ("SCHEDULED", f"{HOST}/{me()}")
    engine.fails["find_start"] = [EngineDown("not yet")]
    step(starter)
    engine.found = "E1"
    clock.now += 1
    step(starter)
    assert (again(job).status, again(job).execution) == ("RUNNING", "E1")
    assert (engine.started, engine.calls.count("start")) == ([job.id], 1)


@pytest.mark.parametrize("method", ["mark", "find_start"])
def test_what_the_engine_cannot_tell_of_one_job_keeps_no_other_from_being_started(
    engine: FakeEngine, starter: Starter, clock: Clock, method: str
) -> None:
    first = placed("a") if method == "mark" else intended_by(f"{HOST}/{a_dead_process()}", name="a")
    second = placed("b", "CPU2")
    engine.fails[method] = [EngineDown("GET /executions: status 500")]
    assert not step(starter)
    assert (again(first).status, again(second).status) == ("SCHEDULED", "RUNNING")
    calls = len(engine.calls)
    step(starter)
    assert len(engine.calls) == calls  # not at once
    clock.now += 1
    step(starter)
    assert again(first).status == ("RUNNING" if method == "mark" else "QUEUED")


@pytest.mark.parametrize("starter_of_old", [f"{HOST}/garbage", "garbage", f"{HOST}/1:x:y", "", "elsewhere/0:0:"])
def test_a_starter_that_names_no_process_is_dead_and_keeps_no_other_job_from_being_started(
    engine: FakeEngine, starter: Starter, starter_of_old: str
) -> None:
    first = intended_by(starter_of_old, name="a")
    second = placed("b", "CPU2")
    engine.found = "E7"
    step(starter)
    assert (again(first).execution, again(second).status) == ("E7", "RUNNING")


def test_a_fault_of_this_program_with_one_job_keeps_no_other_from_being_started(
    engine: FakeEngine, starter: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = placed("a"), placed("b", "CPU2")
    engine.fails["mark"] = [ValueError("what is this?")]
    step(starter)
    step(starter)
    assert (again(first).status, again(second).status) == ("SCHEDULED", "RUNNING")
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        f"job {first.id} (a): start on engine1: a fault of this program: ValueError: what is this?; trying again"
    ]


def test_a_start_that_surely_did_not_arrive_waits_again(engine: FakeEngine, starter: Starter) -> None:
    job = intended_by(f"{HOST}/{me()}")
    assert step(starter)
    assert (again(job).status, again(job).starter, cpu1()) == ("QUEUED", None, "FREE")
    assert engine.started == []


def test_a_start_that_even_the_engine_cannot_tell_fails_the_job(engine: FakeEngine, starter: Starter) -> None:
    job = intended_by(f"{HOST}/{me()}")
    engine.fails["find_start"] = [StartLost("two were started")]
    step(starter)
    assert again(job).status == "FAILED"
    assert again(job).reason == "whether it was started on engine1 cannot be told: two were started"
    assert (cpu1(), engine.started) == ("FREE", [])


def test_a_start_that_cannot_be_told_is_tried_again_only_where_the_job_says_so(
    engine: FakeEngine, starter: Starter
) -> None:
    job = intended_by(f"{HOST}/{me()}", on_unknown="retry")
    engine.fails["find_start"] = [StartLost("two were started")]
    step(starter)
    assert (again(job).status, "on_unknown=retry" in str(again(job).reason)) == ("QUEUED", True)


def test_retries_are_for_what_surely_does_not_run(engine: FakeEngine, starter: Starter) -> None:
    job = intended_by(f"{HOST}/{me()}", retries=3)
    engine.fails["find_start"] = [StartLost("two were started")]
    step(starter)
    assert again(job).status == "FAILED"


def test_what_another_living_process_is_starting_is_left_to_it(engine: FakeEngine) -> None:
    job = intended_by(f"{HOST}/{me()}")
    another = Starter(engine, HOST, a_dead_process())  # that it is dead is not what it asks of itself
    assert not step(another)
    assert (again(job), engine.calls) == (job, [])


def test_what_another_host_is_starting_is_left_to_it(engine: FakeEngine, starter: Starter) -> None:
    job = intended_by(f"another-host/{a_dead_process()}")
    assert not step(starter)
    assert again(job) == job


def test_what_a_dead_process_was_starting_is_resolved(engine: FakeEngine, starter: Starter) -> None:
    job = intended_by(f"{HOST}/{a_dead_process()}")
    engine.found = "E7"
    step(starter)
    assert (again(job).status, again(job).execution, engine.started) == ("RUNNING", "E7", [])


def test_of_two_starters_one_starts(engine: FakeEngine, starter: Starter) -> None:
    job = placed()
    seen = jobs_on("engine1")
    assert intend_start(job, f"{HOST}/another", "mark")
    starter.start(seen)  # has not seen the other's intent
    assert (engine.started, again(job).starter) == ([], f"{HOST}/another")


def given_up_meanwhile(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Place a job that somebody puts back into the queue while its start is on the way."""
    job = placed()
    start = engine.start

    def start_slowly(intended: Job) -> str:
        execution = start(intended)
        assert not_started(again(intended), "put back by somebody")
        return execution

    monkeypatch.setattr(engine, "start", start_slowly)
    return job


def test_an_execution_that_can_no_longer_be_recorded_is_cancelled(
    engine: FakeEngine, starter: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = given_up_meanwhile(engine, monkeypatch)
    assert step(starter)
    assert (engine.cancelled, again(job).status) == ([job.id], "QUEUED")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "execution E1 on engine1 is not recorded, since its job was changed meanwhile: cancelled" in caplog.text


def test_an_execution_that_can_neither_be_recorded_nor_cancelled_is_told(
    engine: FakeEngine, starter: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given_up_meanwhile(engine, monkeypatch)
    engine.fails["cancel"] = [EngineDown("status 500")]
    assert step(starter)
    assert "execution E1 on engine1 is not recorded" in caplog.text
    assert "IT MAY RUN ON, and cannot be cancelled: status 500" in caplog.text


def test_an_execution_that_somebody_else_has_recorded_is_not_cancelled(
    engine: FakeEngine, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = placed()
    start = engine.start

    def start_and_lose_the_race(intended: Job) -> str:
        execution = start(intended)
        assert started(intended, execution)
        return execution

    monkeypatch.setattr(engine, "start", start_and_lose_the_race)
    step(starter)
    assert (engine.cancelled, again(job).execution) == ([], "E1")


def test_a_job_that_was_asked_to_end_is_not_started(engine: FakeEngine, starter: Starter) -> None:
    job = placed()
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    assert step(starter)
    assert (again(job).status, again(job).reason, cpu1()) == ("CANCELLED", "by its caller", "FREE")
    assert engine.calls == []


def test_a_job_that_was_asked_to_end_is_resolved_all_the_same(engine: FakeEngine, starter: Starter) -> None:
    job = intended_by(f"{HOST}/{me()}")
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    engine.found = "E1"
    step(starter)
    assert (again(job).status, again(job).execution) == ("RUNNING", "E1")  # check cancels it there


def test_the_engine_is_told_which_executions_are_known_to_be_of_others(engine: FakeEngine, starter: Starter) -> None:
    other = placed("OTHER", "CPU2")
    step(starter)
    assert again(other).execution == "E1"
    intended_by(f"{HOST}/{me()}")
    step(starter)
    assert engine.others == {"E1"}


@pytest.mark.parametrize("end", [JobStatus.FINISHED, JobStatus.FAILED])
def test_an_execution_of_another_job_that_has_ended_meanwhile_is_known_to_be_the_others(
    engine: FakeEngine, starter: Starter, end: JobStatus
) -> None:
    """Two processes may start on one engine; what one has started and seen end, the other must not adopt."""
    placed()
    seed_cpus("engine1", 2)
    lost = intended_by(f"{HOST}/{a_dead_process()}", name="LOST", cpu="CPU2")
    other = placed("OTHER", "CPU3", retries=1)
    intend_start(other, f"{HOST}/another", "mark")
    started(again(other), "E9")
    ended(again(other), end, "rows rejected")  # FAILED: tried again, and its row forgets E9
    engine.fails["mark"] = [EngineDown("no answer")] * 2
    starter.start([lost])
    assert engine.others == {"E9"}


def test_an_execution_of_long_ago_says_nothing_of_a_start_of_today(engine: FakeEngine, starter: Starter) -> None:
    """A reinstalled engine counts from 1 again: taken for another's, the start would be made twice."""
    old = intended_by(f"{HOST}/{me()}", name="OLD")
    started(old, "E1")
    ended(again(old), JobStatus.FINISHED, None)
    intended_by(f"{HOST}/{a_dead_process()}")
    engine.found = "E1"
    step(starter)
    assert engine.others == set()


def test_one_engines_trouble_with_a_job_does_not_start_the_next_one(engine: FakeEngine, starter: Starter) -> None:
    first, second = placed("a", "CPU1"), placed("b", "CPU2")
    engine.loses_answers = True
    engine.fails["start"] = [StartUnknown("no answer")]
    with pytest.raises(EngineDown):
        step(starter)
    assert (again(first).starter is None, again(second).starter) == (False, None)
    assert engine.started == [first.id]
