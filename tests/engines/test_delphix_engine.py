"""The engine of kind delphix against a simulated one: what it has, what runs there, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.clock import tick
from orchestrator.engines.base import Ended, Knows, Running, Unsure
from orchestrator.engines.delphix import DelphixEngine
from orchestrator.engines.delphix import client as client_module
from orchestrator.engines.delphix import engine as engine_module
from orchestrator.errors import EngineDown, StartRefused, StartUnknown
from orchestrator.job import Job
from orchestrator.simulator import Simulator
from orchestrator.state import JobStatus

from .make import a_job, delphix, intended, running

FAULTS = ["status_500", "status_503", "hang", "garbage", "truncated", "wrong_types", "huge"]
IDS = {"MASK_CRM": 1, "MASK_HR": 2, "MASK_BROKEN": 5, "MASK_WARNS": 6, "MASK_LEAKS": 7}


def start(engine: DelphixEngine, name: str = "MASK_CRM", **fields: object) -> Job:
    """Start a job as the step start does; the job with its execution."""
    engine.refresh()
    mark = engine.mark(a_job(job=name))
    assert mark is not None
    execution = engine.start(intended(mark, job=name))
    return running(execution, int(mark.split(":")[0]), job=name, **fields)


def end_of(engine: DelphixEngine, job: Job) -> Ended:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = engine.check([job]).get(job.id)
        if isinstance(state, Ended):
            return state
        time.sleep(0.01)
    raise AssertionError("it never ended")


def trouble_of(engine: DelphixEngine, job: Job) -> EngineDown:
    """Give what the engine cannot tell of one job."""
    state = engine.check([job])[job.id]
    assert isinstance(state, EngineDown)
    return state


def with_events(
    engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, object]], total: int
) -> None:
    """Have the engine show `rows` as the only page of events, and announce `total`."""
    page = engine._client.page

    def pages(path: str, number: int, size: int, **params: object) -> tuple[list[dict[str, object]], int]:
        return (rows, total) if path == "/execution-events" else page(path, number, size, **params)

    monkeypatch.setattr(engine._client, "page", pages)


def count(simulator: Simulator, part: str) -> int:
    return sum(part in request for request in simulator.requests)


def test_it_tells_its_version(engine: DelphixEngine) -> None:
    assert engine.describe().startswith("masking engine 5.")


def test_it_knows_its_jobs_after_it_was_asked_and_wants_to_be_asked_for_others(
    engine: DelphixEngine, simulator: Simulator
) -> None:
    assert engine.lookup(a_job()).knows is Knows.ASK
    engine.refresh()
    assert engine.lookup(a_job()).knows is Knows.YES
    assert engine.lookup(a_job(job="MASK_NEW")).knows is Knows.ASK
    simulator.put_job(name="MASK_NEW", environment="DEMO")
    engine.refresh()
    assert engine.lookup(a_job(job="MASK_NEW")).knows is Knows.YES


def test_it_runs_no_commands(engine: DelphixEngine) -> None:
    engine.refresh()
    assert engine.lookup(a_job(command="greet")).knows is Knows.NO


@pytest.mark.parametrize(
    ("job", "status", "on_warning"),
    [
        ("MASK_CRM", JobStatus.FINISHED, "fail"),
        ("MASK_BROKEN", JobStatus.FAILED, "fail"),
        ("MASK_WARNS", JobStatus.FAILED, "fail"),
        ("MASK_WARNS", JobStatus.FINISHED, "finish"),
        ("MASK_LEAKS", JobStatus.FAILED, "fail"),
        ("MASK_LEAKS", JobStatus.FINISHED, "finish"),
    ],
)
def test_a_masking_job_ends_as_its_events_say(
    engine: DelphixEngine, job: str, status: JobStatus, on_warning: str
) -> None:
    ended = end_of(engine, start(engine, job, on_warning=on_warning))
    assert ended.status is status
    if job == "MASK_CRM":
        assert ended.rows_masked == ended.rows_total
    if job == "MASK_LEAKS":
        assert "UNMASKED_DATA" in str(ended.reason)


def test_an_event_on_a_later_page_is_seen(engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = start(engine)
    known = {"executionId": int(job.execution or 0), "eventType": "MASKING_FALLBACK"}
    rows = [known | {"executionEventId": number} for number in range(4)]
    rows[3] = rows[3] | {"eventType": "UNMASKED_DATA"}
    asked: list[int] = []
    page = engine._client.page

    def pages(path: str, number: int, size: int, **params: object) -> tuple[list[dict[str, object]], int]:
        if path != "/execution-events":
            return page(path, number, size, **params)
        asked.append(number)
        return [dict(rows[number - 1])], len(rows)

    monkeypatch.setattr(engine._client, "page", pages)
    assert end_of(engine, job).status is JobStatus.FAILED
    assert asked == [1, 2, 3, 4]


@pytest.mark.parametrize("named", [{}, {"executionId": None}, {"executionId": "x"}, {"executionId": True}])
def test_an_event_that_names_no_other_execution_counts(
    engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch, named: dict[str, object]
) -> None:
    job = start(engine)
    event = named | {"eventType": "UNMASKED_DATA", "count": 5}
    with_events(engine, monkeypatch, [event], 1)
    assert end_of(engine, job).status is JobStatus.FAILED


def test_an_event_of_another_execution_does_not_count(engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = start(engine)
    with_events(engine, monkeypatch, [{"executionId": 9999, "eventType": "UNMASKED_DATA"}], 1)
    assert end_of(engine, job).status is JobStatus.FINISHED


def test_events_that_are_announced_and_not_shown_are_not_taken_for_none(
    engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(engine)
    time.sleep(0.06)
    with_events(engine, monkeypatch, [], 3)
    assert "3 rows were announced" in str(trouble_of(engine, job))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_goes_green_before_its_events_were_read(
    engine: DelphixEngine, simulator: Simulator, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(engine, "MASK_LEAKS")
    time.sleep(0.06)
    events = engine._events

    def events_under_fault(execution: str) -> list[dict[str, object]]:
        simulator.fault(**{fault: 1})
        return events(execution)

    monkeypatch.setattr(engine, "_events", events_under_fault)
    assert trouble_of(engine, job)
    monkeypatch.undo()
    simulator.fault(**{fault: 0})
    monkeypatch.setattr(client_module, "READ_TIMEOUT", 5.0)
    assert engine.check([job])[job.id] == end_of(engine, job)
    assert end_of(engine, job).status is JobStatus.FAILED


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", ["describe", "refresh", "mark", "check", "cancel"])
def test_an_engine_that_answers_nothing_sensible_is_down_whatever_it_was_asked(
    engine: DelphixEngine, simulator: Simulator, fault: str, method: str
) -> None:
    simulator.put_job(name="MASK_CRM", environment="DEMO", seconds=60)  # one that has ended cannot be cancelled
    job = start(engine)
    asks: dict[str, Callable[[], object]] = {
        "describe": engine.describe,
        "refresh": engine.refresh,
        "mark": lambda: engine.mark(a_job()),
        "check": lambda: engine.check([job]),
        "cancel": lambda: engine.cancel(job),
    }
    simulator.fault(**{fault: 1})
    if fault == "wrong_types" and method in ("describe", "cancel"):  # nothing of the answer is needed there
        asks[method]()
    else:
        with pytest.raises(EngineDown):
            asks[method]()
    assert simulator.faults() == {}


def test_a_refresh_that_breaks_off_leaves_what_was_known(engine: DelphixEngine, simulator: Simulator) -> None:
    engine.refresh()
    simulator.fault(status_500=1)
    with pytest.raises(EngineDown):
        engine.refresh()
    assert engine.lookup(a_job()).knows is Knows.YES


def refuse_environment(engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch, number: int, status: int) -> None:
    """Have the engine answer so when it is asked for the jobs of one environment."""
    send = engine._client._send

    def send_all_but_one(method: str, path: str, **more: Any) -> tuple[int, object]:
        of_it = path == "/masking-jobs" and (more.get("params") or {}).get("environment_id") == number
        return (status, {"errorMessage": "not for you"}) if of_it else send(method, path, **more)

    monkeypatch.setattr(engine._client, "_send", send_all_but_one)


def test_an_environment_that_cannot_be_listed_keeps_its_jobs_and_all_others_are_known(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.put_job(name="MASK_OLD", environment="OTHER")
    engine.refresh()
    simulator.put_job(name="MASK_NEW", environment="DEMO")
    refuse_environment(engine, monkeypatch, 2, 500)
    with pytest.raises(EngineDown, match="environment OTHER: GET /masking-jobs: status 500"):
        engine.refresh()
    for name in ("MASK_NEW", "MASK_OLD", "MASK_CRM"):
        assert engine.lookup(a_job(job=name)).knows is Knows.YES
        assert engine.mark(a_job(job=name))
    with pytest.raises(EngineDown, match="no job MASK_X; environment OTHER"):
        engine.mark(a_job(job="MASK_X"))


@pytest.mark.parametrize("status", [403, 404])
def test_an_environment_whose_jobs_are_not_for_this_user_has_none(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    simulator.put_job(name="MASK_OLD", environment="OTHER")
    engine.refresh()
    refuse_environment(engine, monkeypatch, 2, status)
    engine.refresh()
    assert engine.lookup(a_job()).knows is Knows.YES
    unknown = engine.lookup(a_job(job="MASK_OLD"))
    assert (unknown.knows, unknown.why) == (Knows.ASK, "no job MASK_OLD (the jobs of OTHER are not shown)")


def test_all_that_runs_costs_one_question_a_tick(engine: DelphixEngine, simulator: Simulator) -> None:
    simulator.put_job(name="MASK_LONG", environment="DEMO", seconds=60)
    jobs = [start(engine, "MASK_LONG", id=number) for number in range(1, 6)]
    before = len(simulator.requests)
    found = engine.check(jobs)
    asked = simulator.requests[before:]
    assert len(found) == 5
    assert all(isinstance(state, Running) for state in found.values())
    assert [request.split("?")[0] for request in asked] == ["GET /masking/api/executions"]


def test_what_the_engine_itself_has_queued_waits_and_is_told_to_the_balancer(secret: str) -> None:
    with Simulator(seconds=60, cpus=1, password=secret) as simulator:
        engine = delphix(simulator.url)
        jobs = [start(engine, "MASK_CRM", id=number) for number in (1, 2)]
        assert not engine.is_queueing()
        assert [state.waits for state in engine.check(jobs).values() if isinstance(state, Running)] == [False, True]
        assert engine.is_queueing()
        engine.cancel(jobs[0])
        found = engine.check(jobs)
        assert isinstance(found[1], Ended)
        assert isinstance(found[2], Running)
        assert not found[2].waits
        assert not engine.is_queueing()
        engine.close()


def test_a_cancelled_execution_is_cancelled_and_one_that_has_ended_stays_as_it_is(engine: DelphixEngine) -> None:
    engine.refresh()
    job = start(engine)
    assert end_of(engine, job).status is JobStatus.FINISHED
    engine.cancel(job)
    assert end_of(engine, job).status is JobStatus.FINISHED


def test_a_cancel_reaches_a_running_execution(engine: DelphixEngine, simulator: Simulator) -> None:
    simulator.put_job(name="MASK_LONG", environment="DEMO", seconds=60)
    job = start(engine, "MASK_LONG")
    engine.cancel(job)
    assert end_of(engine, job).status is JobStatus.CANCELLED


def unsure_for(job: Job, seconds: float) -> Job:
    """Give a job of which nothing could be concluded for so long."""
    boot, now = tick().split()
    return replace(job, unsure_tick=f"{boot} {float(now) - seconds}")


def test_an_execution_that_vanishes_fails_only_where_it_stays_away(engine: DelphixEngine, simulator: Simulator) -> None:
    job = start(engine)
    simulator.fault(vanish=int(job.execution or 0))
    assert engine.check([job]) == {job.id: Unsure()}
    assert engine.check([unsure_for(job, 0.5)]) == {job.id: Unsure()}
    gone = engine.check([unsure_for(job, engine_module.VANISHED_WAIT)])[job.id]
    assert isinstance(gone, Ended)
    assert (gone.status, gone.reason) == (JobStatus.FAILED, f"execution {job.execution} vanished")
    simulator.fault(vanish=0)
    assert isinstance(engine.check([unsure_for(job, 99)])[job.id], Running | Ended)
    assert end_of(engine, unsure_for(job, 99)).status is JobStatus.FINISHED


def test_an_unknown_status_is_waited_on_a_while_and_then_it_is_not_finished(
    engine: DelphixEngine, simulator: Simulator
) -> None:
    simulator.put_job(name="MASK_ODD", environment="DEMO", outcome="odd", seconds=0)
    job = start(engine, "MASK_ODD", on_warning="finish")
    assert end_of(engine, unsure_for(job, engine_module.ODD_STATUS_WAIT)).status is JobStatus.FAILED


@pytest.mark.parametrize("status", [["RUNNING"], {}, None, 7, "PAUSED"])
def test_a_status_of_any_shape_is_waited_on_and_breaks_nothing(
    engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch, status: object
) -> None:
    job = start(engine)
    row = {"executionId": int(job.execution or 0), "jobId": 1, "status": status}
    monkeypatch.setattr(engine, "_list", lambda _: {str(job.execution): row})
    assert engine.check([job]) == {job.id: Unsure()}
    assert engine.check([unsure_for(job, 30)]) == {job.id: Unsure()}
    ended = end_of(engine, unsure_for(job, engine_module.ODD_STATUS_WAIT))
    assert (ended.status, ended.may_run_on) == (JobStatus.FAILED, True)


def test_an_engines_clock_that_is_wrong_matters_to_nothing(engine: DelphixEngine, simulator: Simulator) -> None:
    simulator.fault(clock=-1e8)
    assert end_of(engine, start(engine)).status is JobStatus.FINISHED


def test_an_answer_about_another_execution_is_none(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(engine)
    time.sleep(0.06)
    get = engine._client.get
    monkeypatch.setattr(engine._client, "get", lambda path, **more: get(path, **more) | {"executionId": 9999})
    assert "something else" in str(trouble_of(engine, job))


@pytest.mark.parametrize("path", ["/executions/1", "/execution-events"])
@pytest.mark.parametrize("status", [404, 500])
def test_an_execution_that_the_engine_cannot_tell_of_says_nothing_of_the_others(
    engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    jobs = [start(engine, id=number) for number in (1, 2)]
    time.sleep(0.06)
    send = engine._client._send

    def send_all_but_one(method: str, asked: str, **more: Any) -> tuple[int, object]:
        of_first = asked == path and (more.get("params") or {"execution_id": "1"}).get("execution_id") == "1"
        return (status, {"errorMessage": "poisoned"}) if of_first else send(method, asked, **more)

    monkeypatch.setattr(engine._client, "_send", send_all_but_one)
    found = engine.check(jobs)
    assert isinstance(found.get(1), EngineDown) or (path, status) == ("/executions/1", 404)
    second = found[2]
    assert isinstance(second, Ended)
    assert second.status is JobStatus.FINISHED


@pytest.mark.usefixtures("impatient")
def test_an_engine_that_answers_nothing_but_its_list_is_down(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(engine)
    time.sleep(0.06)
    monkeypatch.setattr(engine, "_list", lambda _: {})
    simulator.fault(status_500=2)
    with pytest.raises(EngineDown, match="system-information"):
        engine.check([job])


def test_an_execution_whose_caller_was_told_needs_no_events_to_give_its_cpu_back(
    engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(engine, ended_at="2026-11-23T12:00:00.000000Z")
    with_events(engine, monkeypatch, [], 3)
    assert not end_of(engine, job).may_run_on


def test_a_start_is_posted_once_with_what_the_job_asks_for(engine: DelphixEngine, simulator: Simulator) -> None:
    simulator.put_job(name="MASK_ANY", environment="DEMO", multi_tenant=True, on_the_fly=True)
    engine.refresh()
    mark = engine.mark(a_job(job="MASK_ANY"))
    engine.start(intended(mark or "", job="MASK_ANY", source_connector=3, target_connector=4))
    (execution,) = simulator.executions()
    assert (execution["sourceConnectorId"], execution["targetConnectorId"]) == (3, 4)
    with pytest.raises(StartRefused, match="targetConnectorId"):
        engine.start(intended(mark or "", job="MASK_ANY"))
    assert count(simulator, "POST /masking/api/executions") == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["lost_answer", "lost_request", *FAULTS])
def test_a_start_without_a_sensible_answer_is_unknown_and_posted_once(
    engine: DelphixEngine, simulator: Simulator, fault: str
) -> None:
    engine.refresh()
    mark = engine.mark(a_job()) or ""
    simulator.fault(**{fault: 1})
    with pytest.raises(StartUnknown):
        engine.start(intended(mark))
    assert count(simulator, "POST /masking/api/executions") == 1


def test_a_job_that_the_engine_no_longer_has_is_not_started(engine: DelphixEngine, simulator: Simulator) -> None:
    engine.refresh()
    simulator.remove_job(name="MASK_CRM", environment="DEMO")
    engine._confirmed.clear()  # as if it were long ago
    with pytest.raises(StartRefused, match="engine engine1 no longer has it: no job MASK_CRM"):
        engine.mark(a_job())
    assert simulator.executions() == []
