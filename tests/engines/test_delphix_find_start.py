"""A start of which nobody knows the outcome, and an engine that was reinstalled: nothing is started wrongly."""

from __future__ import annotations

import time

import pytest

from orchestrator.clock import tick
from orchestrator.engines.base import Ended, Running, StartLost, Unsure
from orchestrator.engines.delphix import DelphixEngine
from orchestrator.engines.delphix.client import NotThere
from orchestrator.engines.delphix.settings import START_TAKES
from orchestrator.errors import EngineDown, StartUnknown
from orchestrator.job import Job
from orchestrator.simulator import Simulator
from orchestrator.state import JobStatus

from .make import a_job, delphix, intended, running


def ago(seconds: float) -> str:
    """Give the tick of a moment of this boot."""
    boot, now = tick().split()
    return f"{boot} {float(now) - seconds:.3f}"


LONG_AGO = ago(1e6)
THEN = "1999-01-01T00:00:00.000000Z"


def lose(engine: DelphixEngine, simulator: Simulator, fault: str) -> str:
    """Start MASK_CRM where the answer is lost; the mark from before."""
    engine.refresh()
    mark = engine.mark(a_job()) or ""
    simulator.fault(**{fault: 1})
    with pytest.raises(StartUnknown):
        engine.start(intended(mark))
    return mark


def newest(simulator: Simulator) -> str:
    return str(simulator.executions()[-1]["executionId"])


def start_by_hand(engine: DelphixEngine, job_id: int = 1) -> str:
    return str(engine._client.post_once("/executions", {"jobId": job_id})["executionId"])


def test_a_start_that_arrived_is_found(engine: DelphixEngine, simulator: Simulator) -> None:
    for _ in range(3):
        start_by_hand(engine)
    mark = lose(engine, simulator, "lost_answer")
    assert engine.find_start(intended(mark), []) == newest(simulator)
    assert len(simulator.executions()) == 4


def test_a_start_that_did_not_arrive_is_surely_none_only_after_a_while(
    engine: DelphixEngine, simulator: Simulator
) -> None:
    mark = lose(engine, simulator, "lost_request")
    with pytest.raises(EngineDown, match="does not show the start yet"):
        engine.find_start(intended(mark), [])
    engine._too_late.clear()
    assert engine.find_start(intended(mark, starting_tick=LONG_AGO, submitted_at=THEN), []) is None


def test_the_wait_for_a_lost_start_begins_when_it_was_lost_not_when_it_was_meant(
    engine: DelphixEngine, simulator: Simulator
) -> None:
    mark = lose(engine, simulator, "lost_request")
    with pytest.raises(EngineDown, match="yet"):
        engine.find_start(intended(mark, starting_tick=ago(30)), [])


@pytest.mark.usefixtures("impatient")
def test_a_start_that_was_too_slow_to_answer_may_be_too_slow_to_show(simulator: Simulator) -> None:
    """It is waited for as long again as for its answer."""
    engine = delphix(simulator.url, lost_start_wait="10ms")
    engine.refresh()
    mark = engine.mark(a_job()) or ""
    simulator.fault(slow=0.3)
    with pytest.raises(StartUnknown):
        engine.start(intended(mark))
    simulator.fault(slow=0)
    time.sleep(0.03)
    with pytest.raises(EngineDown, match="yet"):
        engine.find_start(intended(mark), [])
    time.sleep(0.1)
    assert engine.find_start(intended(mark), []) == newest(simulator)
    engine.close()


@pytest.mark.parametrize(("seconds", "is_told"), [(START_TAKES, False), (START_TAKES + 6, True)])
def test_a_start_that_a_dead_process_left_may_have_taken_as_long_as_any(
    engine: DelphixEngine, simulator: Simulator, seconds: float, is_told: bool
) -> None:
    engine.refresh()
    job = intended(engine.mark(a_job()) or "", starting_tick=ago(seconds))
    if is_told:
        assert engine.find_start(job, []) is None
    else:
        with pytest.raises(EngineDown, match="yet"):
            engine.find_start(job, [])


@pytest.mark.parametrize(("uptime", "is_told"), [(START_TAKES, False), (START_TAKES + 6, True)])
def test_of_a_start_before_a_reboot_only_the_time_since_the_boot_is_sure(
    engine: DelphixEngine, monkeypatch: pytest.MonkeyPatch, uptime: float, is_told: bool
) -> None:
    """Its job may have come hours before it was started, and the wall clock may have been set."""
    engine.refresh()
    job = intended(engine.mark(a_job()) or "", starting_tick="another-boot 99.0", submitted_at=THEN)
    monkeypatch.setattr(time, "clock_gettime", lambda _: uptime)
    if is_told:
        assert engine.find_start(job, []) is None
    else:
        with pytest.raises(EngineDown, match="yet"):
            engine.find_start(job, [])


def test_what_is_kept_of_a_lost_start_goes_with_the_attempt(engine: DelphixEngine, simulator: Simulator) -> None:
    mark = lose(engine, simulator, "lost_request")
    engine.forget(intended(mark))
    assert engine._too_late == {}


def test_a_start_that_shows_late_is_found_all_the_same(engine: DelphixEngine, simulator: Simulator) -> None:
    mark = lose(engine, simulator, "lost_answer")
    simulator.fault(vanish=int(newest(simulator)))
    with pytest.raises(EngineDown, match="yet"):
        engine.find_start(intended(mark), [])
    simulator.fault(vanish=0)
    assert engine.find_start(intended(mark), []) == newest(simulator)


def test_starts_of_other_jobs_of_ours_are_not_taken_for_it(engine: DelphixEngine, simulator: Simulator) -> None:
    mark = lose(engine, simulator, "lost_answer")
    arrived = newest(simulator)
    another = start_by_hand(engine)
    assert engine.find_start(intended(mark), [another]) == arrived
    engine._too_late.clear()
    long_ago = intended(mark, starting_tick=LONG_AGO, submitted_at=THEN)
    assert engine.find_start(long_ago, [another, arrived]) is None


def test_starts_of_other_masking_jobs_are_not_taken_for_it(engine: DelphixEngine, simulator: Simulator) -> None:
    mark = lose(engine, simulator, "lost_request")
    start_by_hand(engine, job_id=2)
    engine._too_late.clear()
    long_ago = intended(mark, starting_tick=LONG_AGO, submitted_at=THEN)
    assert engine.find_start(long_ago, []) is None


def test_a_start_that_cannot_be_told_from_a_strangers_is_lost(engine: DelphixEngine, simulator: Simulator) -> None:
    mark = lose(engine, simulator, "lost_answer")
    start_by_hand(engine)
    with pytest.raises(StartLost, match="were all started meanwhile"):
        engine.find_start(intended(mark), [])


def test_an_engine_that_shows_fewer_executions_than_before_cannot_tell(
    engine: DelphixEngine, simulator: Simulator
) -> None:
    start_by_hand(engine)
    mark = lose(engine, simulator, "lost_answer")
    simulator.reset()
    with pytest.raises(StartLost, match="shows 0 executions of the job, before the start it showed 1"):
        engine.find_start(intended(mark), [])


def over(mark: str) -> Job:
    """Give a job whose start was lost and whose caller was told; it still holds its CPU."""
    return intended(mark, status="FAILED", ended_at=THEN, kept_since=THEN, starting_tick=LONG_AGO)


def test_a_lost_start_holds_its_cpu_while_anything_runs_that_it_may_have_started(
    engine: DelphixEngine, simulator: Simulator
) -> None:
    simulator.put_job(name="MASK_CRM", environment="DEMO", seconds=60)
    mark = lose(engine, simulator, "lost_answer")
    start_by_hand(engine)
    job = over(mark)
    with pytest.raises(StartLost) as told:
        engine.find_start(job, [])
    assert told.value.may_run
    engine.forget(job)
    numbers = [str(each["executionId"]) for each in simulator.executions()]
    assert isinstance(engine.check([job])[1], Running)
    other = running(numbers[0], 1, id=2)
    assert isinstance(engine.check([job, other])[1], Running)
    for number in numbers:
        engine.cancel(running(number))
    assert isinstance(engine.check([job])[1], Ended)


def test_a_lost_start_holds_no_cpu_for_executions_of_other_jobs_or_from_before(
    engine: DelphixEngine, simulator: Simulator
) -> None:
    simulator.put_job(name="MASK_CRM", environment="DEMO", seconds=60)
    start_by_hand(engine)
    mark = lose(engine, simulator, "lost_request")
    engine._too_late.clear()
    assert isinstance(engine.check([over(mark)])[1], Ended)
    another = running(start_by_hand(engine), 1, id=2)
    assert isinstance(engine.check([over(mark)])[1], Running)
    assert isinstance(engine.check([over(mark), another])[1], Ended)


def test_a_lost_start_holds_its_cpu_until_it_is_too_late_for_it_to_show(
    engine: DelphixEngine, simulator: Simulator
) -> None:
    mark = lose(engine, simulator, "lost_request")
    assert isinstance(engine.check([over(mark)])[1], Running)


def test_a_lost_start_holds_its_cpu_while_the_engine_does_not_tell(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = lose(engine, simulator, "lost_answer")

    def refuse(job_id: int) -> list[dict[str, object]]:
        raise NotThere("GET /executions: status 404")

    monkeypatch.setattr(engine, "_executions_of", refuse)
    assert isinstance(engine.check([over(mark)])[1], EngineDown)


def test_executions_without_proper_ids_conclude_nothing(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = lose(engine, simulator, "lost_answer")
    row = {"executionId": str(newest(simulator)), "jobId": 1}
    monkeypatch.setattr(engine._client, "page", lambda *_, **__: ([row], 1))
    with pytest.raises(EngineDown, match="proper ids"):
        engine.find_start(intended(mark, starting_tick=LONG_AGO, submitted_at=THEN), [])


def test_executions_that_are_announced_and_not_shown_conclude_nothing(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = lose(engine, simulator, "lost_answer")
    monkeypatch.setattr(engine._client, "page", lambda *_, **__: ([], 1))
    with pytest.raises(EngineDown, match="1 rows were announced"):
        engine.find_start(intended(mark, starting_tick=LONG_AGO, submitted_at=THEN), [])


def test_an_engine_whose_tokens_end_with_every_request_starts_nothing(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.refresh()
    page = engine._client.page

    def page_after_login(path: str, number: int, size: int, **params: object) -> tuple[list[dict[str, object]], int]:
        engine._client._login()
        return page(path, number, size, **params)

    monkeypatch.setattr(engine._client, "page", page_after_login)
    with pytest.raises(EngineDown, match="tokens end"):
        engine.mark(a_job())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["status_500", "hang", "garbage", "truncated", "wrong_types", "huge"])
def test_while_the_engine_does_not_answer_nothing_is_concluded(
    engine: DelphixEngine, simulator: Simulator, fault: str
) -> None:
    mark = lose(engine, simulator, "lost_answer")
    simulator.fault(**{fault: 1})
    with pytest.raises(EngineDown):
        engine.find_start(intended(mark, starting_tick=LONG_AGO, submitted_at=THEN), [])


def test_an_engine_that_knows_no_filter_by_job_does_not_mislead(
    engine: DelphixEngine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would list the executions of all jobs: only those of the job itself count."""
    mark = lose(engine, simulator, "lost_request")
    start_by_hand(engine, job_id=2)
    page = engine._client.page

    def unfiltered(path: str, number: int, size: int, **params: object) -> tuple[list[dict[str, object]], int]:
        params.pop("job_id", None)
        return page(path, number, size, **params)

    monkeypatch.setattr(engine._client, "page", unfiltered)
    engine._too_late.clear()
    long_ago = intended(mark, starting_tick=LONG_AGO, submitted_at=THEN)
    assert engine.find_start(long_ago, []) is None


class Reinstalled:
    """An engine whose address stays, and whose job ids mean other jobs from one moment on."""

    def __init__(self, secret: str) -> None:
        self.before = Simulator(seconds=60, password=secret)
        self.before.start()
        self.after = Simulator(seconds=60, password=secret, first_id=100, port=self.before.port)
        self.after.put_job(name="MASK_OTHER", environment="DEMO", id=1, seconds=60)

    def reinstall(self) -> None:
        self.before.stop()
        self.after.start()


@pytest.fixture
def reinstalled(secret: str) -> Reinstalled:
    return Reinstalled(secret)


@pytest.mark.parametrize("known_for", ["long", "just now"])
def test_a_reinstalled_engine_is_asked_anew_before_anything_is_started(
    reinstalled: Reinstalled, known_for: str
) -> None:
    engine = delphix(reinstalled.before.url)
    engine.refresh()
    if known_for == "long":
        engine._confirmed.clear()
    reinstalled.reinstall()
    mark = engine.mark(a_job()) or ""
    engine.start(intended(mark))
    assert mark == "100:0"
    assert [each["jobName"] for each in reinstalled.after.executions()] == ["MASK_CRM"]
    engine.close()
    reinstalled.after.stop()


def test_an_execution_that_means_another_job_now_fails(reinstalled: Reinstalled) -> None:
    engine = delphix(reinstalled.before.url)
    engine.refresh()
    execution = engine.start(intended(engine.mark(a_job()) or ""))
    reinstalled.reinstall()
    jobs = [running(execution, 1)]
    assert engine.check(jobs) == {1: Unsure()}
    gone = engine.check([running(execution, 1, unsure_tick=LONG_AGO)])[1]
    assert isinstance(gone, Ended)
    assert gone.status is JobStatus.FAILED
    other = engine._client.post_once("/executions", {"jobId": 101})["executionId"]
    mixed = engine.check([running(str(other), 1)])[1]
    assert isinstance(mixed, Ended)
    assert mixed.status is JobStatus.FAILED
    assert "reinstalled" in str(mixed.reason)
    engine.close()
    reinstalled.after.stop()


@pytest.mark.parametrize("mark", [None, "", "x", "1:", ":1"])
def test_what_was_started_by_an_engine_of_another_kind_is_lost_and_breaks_nothing(
    engine: DelphixEngine, mark: str | None
) -> None:
    """Somebody has changed the kind of engine1 in the settings while it had jobs."""
    execution = start_by_hand(engine)
    with pytest.raises(StartLost, match="another kind"):
        engine.find_start(a_job(start_mark=mark, starting_tick=LONG_AGO, submitted_at=THEN), [])
    found = engine.check([a_job(status="RUNNING", execution=execution, start_mark=mark)])[1]
    assert isinstance(found, Ended)
    assert (found.status, "another kind" in str(found.reason)) == (JobStatus.FAILED, True)
