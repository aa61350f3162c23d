"""Engines that misbehave: each job still ends as its execution did, and is started once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from orchestrator.simulator import Simulator
from tests.faults.points import SETTINGS
from tests.house import House, wait_for

# Set while a job of half a second runs, or is about to be started.
FAULTS: dict[str, dict[str, object]] = {
    "500s": {"status_500": 3},
    "503s": {"status_503": 3},
    "a token that ends": {"status_401": 2},
    "garbage": {"garbage": 3},
    "truncated answers": {"truncated": 3},
    "wrong types": {"wrong_types": 3},
    "huge answers": {"huge": 2},
    "slow answers": {"slow": 0.3},
    "a clock an hour off": {"clock": 3600},
    "a clock an hour behind": {"clock": -3600},
    "a start that gets no answer": {"lost_answer": 1},
    "a start that gets lost": {"lost_request": 1},
}


@pytest.mark.parametrize("when", ["at the start", "while it runs"])
def test_a_job_ends_as_its_execution_did_whatever_its_engine_does(masking_house: House, when: str) -> None:
    """Each fault at an engine of its own, all at the same time, since they are mostly waited for."""
    with ExitStack() as stack:
        engines = {f"e{number}": stack.enter_context(Simulator(seconds=0.5)) for number in range(len(FAULTS))}
        faults = dict(zip(engines, FAULTS.items(), strict=True))
        for name, engine in engines.items():
            masking_house.add_engine(name, engine.url, more=SETTINGS)
        masking_house.start()
        for name in engines:
            masking_house.drop(f"KNOWN_{name}", "job=MASK_HR", f"engine={name}")
        assert {masking_house.verdict(f"KNOWN_{name}") for name in engines} == {None}
        if when == "at the start":
            for name, engine in engines.items():
                engine.fault(**faults[name][1])
        for name in engines:
            masking_house.drop(f"GOOD_{name}", "job=MASK_CRM", f"engine={name}")
            masking_house.drop(f"LEAKY_{name}", "job=MASK_LEAKS", f"engine={name}")
        if when == "while it runs":
            for name, engine in engines.items():
                wait_for(lambda: len(engine.executions()) == 3)  # noqa: B023
                engine.fault(**faults[name][1])

        for name, engine in engines.items():
            fault = faults[name][0]
            assert masking_house.verdict(f"GOOD_{name}", 60) is None, fault
            assert (masking_house.verdict(f"LEAKY_{name}", 60) or "").startswith("FAILED "), fault
            started = sorted(each["jobName"] for each in engine.executions())
            assert started == ["MASK_CRM", "MASK_HR", "MASK_LEAKS"], fault
        assert "Traceback" not in masking_house.log.read_text()


def test_an_engine_that_flaps_finishes_every_job_once(masking_house: House) -> None:
    with Simulator(seconds=0.3, cpus=8) as engine:
        masking_house.add_engine("engine1", engine.url, cpus=8, more=SETTINGS)
        masking_house.start()
        masking_house.wait_for_engine("engine1", "UP")
        for number in range(16):
            masking_house.drop(f"J{number}", "job=MASK_CRM")
        for _ in range(4):
            time.sleep(0.4)
            engine.stop()
            time.sleep(0.4)
            engine.start()

        assert [masking_house.verdict(f"J{number}", 60) for number in range(16)] == [None] * 16
        assert len(engine.executions()) == 16


def test_one_engine_that_hangs_holds_up_no_other(masking_house: House) -> None:
    with Simulator(seconds=0.1) as good, Simulator(seconds=0.1) as bad:
        masking_house.add_engine("good", good.url, more=SETTINGS)
        masking_house.add_engine("bad", bad.url, more=SETTINGS)
        bad.fault(hang=100)
        masking_house.start()
        masking_house.wait_for_engine("good", "UP")
        began = time.monotonic()
        for number in range(5):
            masking_house.drop(f"J{number}", "job=MASK_CRM")
        assert [masking_house.verdict(f"J{number}") for number in range(5)] == [None] * 5
        assert time.monotonic() - began < 10
        assert bad.executions() == []
        bad.fault(hang=0)


def test_credentials_do_not_follow_a_redirect_to_another_host(masking_house: House) -> None:
    with Simulator(seconds=0.1) as engine, Simulator(seconds=0.1) as thief:
        engine.fault(redirect=thief.url + "/login")
        masking_house.add_engine("engine1", engine.url, more=SETTINGS)
        masking_house.start()
        masking_house.wait_for_engine("engine1", "DOWN")
        assert thief.requests == []
        [found] = masking_house.json("engine", "list")
        assert "redirected" in found["reason"]
        engine.fault(redirect=0)
        masking_house.wait_for_engine("engine1", "UP")  # the first success closes the breaker
        masking_house.drop("AFTER", "job=MASK_CRM")
        assert masking_house.verdict("AFTER") is None


def test_an_execution_that_vanishes_fails_its_job(masking_house: House) -> None:
    with Simulator(seconds=5) as engine:
        masking_house.add_engine("engine1", engine.url, more=SETTINGS)
        masking_house.start()
        masking_house.drop("GONE", "job=MASK_CRM")
        masking_house.wait_for_status("GONE", "RUNNING")
        engine.fault(vanish=engine.executions()[0]["executionId"])
        assert "vanished" in (masking_house.verdict("GONE", 40) or "")


def test_an_engine_that_was_reinstalled_runs_nothing_else_under_an_old_id(masking_house: House) -> None:
    with Simulator(seconds=0.1) as engine:
        masking_house.add_engine("engine1", engine.url, more=SETTINGS)
        masking_house.start()
        masking_house.drop("BEFORE", "job=MASK_CRM")
        assert masking_house.verdict("BEFORE") is None
        old = {each["jobName"]: each["jobId"] for each in engine.executions()}["MASK_CRM"]
        engine.reset()  # tokens and executions are gone
        engine.put_job(name="MASK_HR", environment="DEMO", id=9000)
        engine.put_job(name="MASK_CRM", environment="DEMO", id=9001)
        engine.put_job(name="ANOTHER", environment="DEMO", id=old)
        masking_house.drop("AFTER", "job=MASK_CRM")
        assert masking_house.verdict("AFTER", 40) is None
        assert [each["jobName"] for each in engine.executions()] == ["MASK_CRM"]


def test_many_bad_moments_at_once_lose_nothing(masking_house: House) -> None:
    with Simulator(seconds=0.2, cpus=8) as engine:
        masking_house.add_engine("engine1", engine.url, cpus=8, more=SETTINGS)
        masking_house.start()
        masking_house.wait_for_engine("engine1", "UP")
        jobs = {f"J{number}": ("MASK_CRM", "MASK_BROKEN", "MASK_LEAKS")[number % 3] for number in range(24)}
        for name, job in jobs.items():
            masking_house.drop(name, f"job={job}")
        stop = threading.Event()
        worry = threading.Thread(target=_worry, args=(stop, lambda: engine.fault(
            status_500=1, garbage=1, truncated=1, status_401=1, lost_answer=1, lost_request=1)))  # fmt: skip
        worry.start()
        time.sleep(5)
        stop.set()
        worry.join()
        engine.fault(status_500=0, garbage=0, truncated=0, status_401=0, lost_answer=0, lost_request=0)
        green = {name for name in jobs if masking_house.verdict(name, 60) is None}
        assert green <= {name for name, job in jobs.items() if job == "MASK_CRM"}
        started = [each["jobName"] for each in engine.executions()]
        for job in set(jobs.values()):
            names = [name for name, asked in jobs.items() if asked == job]
            attempts = sum(masking_house.job(name)["attempts"] for name in names)
            assert started.count(job) <= attempts
        lost = [name for name in jobs if "cannot be told" in (masking_house.job(name)["reason"] or "")]
        assert green | set(lost) >= {name for name, job in jobs.items() if job == "MASK_CRM"}


def _worry(stop: threading.Event, act: Callable[[], None]) -> None:
    while not stop.wait(0.7):
        act()
