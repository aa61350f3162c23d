"""The threads around the steps: what failed is tried again, and no haste of one holds up another."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import daemon
from orchestrator.checkstatus import check
from orchestrator.daemon import Schedule, ring_schedule, stop
from orchestrator.scheduler.schedule import Scheduled
from orchestrator.settings import EngineSettings, Settings, load_settings
from orchestrator.state import JobStatus
from orchestrator.store.database import StoreBusy
from orchestrator.store.engines import seed_cpus
from orchestrator.store.running import intend_start, started
from orchestrator.store.taking import ask_end
from tests.engines.fake import FakeEngine
from tests.house import wait_for

from .make import again, placed, queued

Starting = Callable[..., Schedule]


@pytest.fixture
def settings(tmp_path: Path, store: Path) -> Settings:
    """Give settings without engines, whose database is open."""
    (tmp_path / "spool").mkdir()
    file = tmp_path / "orchestrator.toml"
    file.write_text('[spools.default]\npath = "spool"\n')
    return load_settings(file)


@pytest.fixture
def starting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starting]:
    """Give a way to start the threads of `schedule`, which look for changes fifty times a second."""
    monkeypatch.setattr(daemon, "LOOK", 0.02)
    started: list[Schedule] = []

    def start(anew: Settings = settings, before: Schedule | None = None) -> Schedule:
        started.append(Schedule(anew))
        if before is not None:
            started[-1].replace([before])
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop()
        for thread in each.threads():
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give what the step schedule did, one word each time; where the last word is `to fail`, it fails once."""
    done: list[str] = []

    def step(engines: object) -> Scheduled:
        if done and done[-1] == "to fail":
            done[-1] = "failed"
            raise StoreBusy("database is locked")
        done.append("done")
        return Scheduled()

    monkeypatch.setattr(daemon, "schedule", step)
    return done


def is_idle(steps: list[str]) -> bool:
    """Tell whether nothing was done in the time of several looks."""
    before = len(steps)
    time.sleep(0.1)
    return bool(before) and len(steps) == before


def test_a_step_that_failed_is_done_again_though_nothing_rings(starting: Starting, steps: list[str]) -> None:
    scheduling = starting()
    wait_for(lambda: is_idle(steps))
    steps[:] = ["to fail"]
    scheduling.ring()

    wait_for(lambda: steps[:2] == ["failed", "done"], 2)


def test_changes_of_others_are_seen_while_the_bell_never_rests(
    starting: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[str] = []

    def release_all(_: object) -> bool:
        released.append("looked")
        return True

    monkeypatch.setattr("orchestrator.daemon.Release.release_all", release_all)
    scheduling = starting()
    wait_for(lambda: is_idle(released))
    resting = threading.Event()

    def ring() -> None:
        while not resting.wait(0.002):
            scheduling.ring()

    ringing = threading.Thread(target=ring)
    ringing.start()
    try:
        before = len(released)
        queued()  # by this thread's connection: somebody else's, for the schedule thread
        wait_for(lambda: len(released) > before, 2)
    finally:
        resting.set()
        ringing.join()


def test_without_a_doorbell_all_goes_on_until_there_can_be_one(
    settings: Settings, starting: Starting, steps: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    doorbells = settings.run_dir / "doorbells"
    doorbells.touch()
    starting()
    wait_for(lambda: is_idle(steps))  # by then each thread has opened what it needs
    fds = len(os.listdir("/proc/self/fd"))
    assert is_idle(steps)
    assert len(os.listdir("/proc/self/fd")) <= fds
    assert len([line for line in caplog.messages if "doorbell" in line]) == 1
    queued()
    wait_for(lambda: len(steps) > 1, 2)
    doorbells.unlink()

    wait_for(lambda: (doorbells / f"schedule.{os.getpid()}").exists(), 2)
    ring_schedule(settings)


def test_a_job_on_an_engine_that_the_settings_no_longer_have_is_not_forgotten(
    starting: Starting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(daemon, "BEAT", 0.02)
    monkeypatch.setattr(check, "SILENT_ENGINE", 0.0)
    seed_cpus("engine1", 3)
    running, late, waiting = (placed(name, cpu=f"CPU{number}") for number, name in enumerate("ABC", 1))
    for job in (running, late):
        intend_start(job, "host/me", None)
        started(again(job), f"E{job.id}")
    starting()

    wait_for(lambda: again(waiting).status == "QUEUED", 2)
    assert again(waiting).reason == "engine engine1 is down: the settings no longer have it"
    ask_end(late.id, JobStatus.CANCELLED, "cancelled by an operator")
    wait_for(lambda: again(late).status == "CANCELLED", 2)
    assert "may still run: the settings no longer have it" in (again(late).reason or "")
    assert again(running).status == "RUNNING"
    assert caplog.messages.count("engine engine1 is not in the settings, and 3 jobs are on it: put it back") == 1


class SlowEngine(FakeEngine):
    """Takes its time over a call: until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def describe(self) -> str:
        self.asked.set()
        assert self.let_go.wait(10)
        return "a slow one"


@pytest.fixture
def slow_engines(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[SlowEngine]:
    """Put a slow engine1 into the settings; one more is made by each start."""
    made: list[SlowEngine] = []

    def make(*_: object) -> SlowEngine:
        made.append(SlowEngine())
        return made[-1]

    monkeypatch.setattr(daemon, "make_engine", make)
    engine = EngineSettings(name="engine1", kind="slow", cpus=1, options={}, where="")
    object.__setattr__(settings, "engines", {"engine1": engine})
    return made


def test_new_settings_wait_for_no_call_of_an_engine_and_ask_it_nothing_before_that_is_over(
    starting: Starting, slow_engines: list[SlowEngine], steps: list[str]
) -> None:
    running = starting()
    assert slow_engines[0].asked.wait(5)
    for number in (1, 2):
        stop([running], None)
        done = len(steps)
        running = starting(before=running)
        wait_for(lambda done=done: len(steps) > done, 2)  # type: ignore[misc]
        assert not slow_engines[number].asked.wait(0.05)
    slow_engines[0].let_go.set()

    assert slow_engines[2].asked.wait(5)
    assert not slow_engines[1].asked.is_set()  # it was replaced before its turn came
    slow_engines[2].let_go.set()


def test_jobs_of_an_engine_that_was_taken_out_are_left_alone_while_a_call_of_it_is_under_way(
    settings: Settings, starting: Starting, slow_engines: list[SlowEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "BEAT", 0.02)
    seed_cpus("engine1", 1)
    job = placed()
    running = starting()
    assert slow_engines[0].asked.wait(5)
    stop([running], None)
    starting(load_settings(settings.file), running)
    time.sleep(0.2)
    assert again(job).status == "SCHEDULED"
    slow_engines[0].let_go.set()

    wait_for(lambda: again(job).status == "RUNNING", 2)
    assert slow_engines[0].started == [job.id]
