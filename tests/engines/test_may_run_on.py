"""What may still run is never run again by itself, and keeps its CPU (P4, P5)."""

from __future__ import annotations

import pytest

from orchestrator.checkstatus.check import Checker
from orchestrator.checkstatus.start import Starter
from orchestrator.engines.base import Ended, StartLost
from orchestrator.state import JobStatus
from orchestrator.store.running import intend_start, jobs_on
from orchestrator.store.views import cpus_of_engines

from .fake import HOST, FakeEngine, again, me, placed

pytestmark = pytest.mark.usefixtures("store")


def test_retries_do_not_run_a_lost_start_again() -> None:
    engine = FakeEngine()
    job = placed(retries=3)
    assert intend_start(job, f"{HOST}/{me()}", "mark") is not None
    engine.fails["find_start"] = [StartLost("nobody can tell")]
    Starter(engine, HOST, me()).start(jobs_on("engine1"))

    assert again(job).status == "FAILED"
    assert again(job).retries == 3
    assert engine.started == []


def test_an_execution_that_may_run_on_keeps_its_cpu_until_the_engine_shows_its_end() -> None:
    engine = FakeEngine()
    job = placed(retries=3)
    Starter(engine, HOST, me()).start(jobs_on("engine1"))
    engine.executions["E1"] = Ended(status=JobStatus.FAILED, reason="an odd status", may_run_on=True)
    checker = Checker(engine)
    checker.check(jobs_on("engine1"))
    checker.check(jobs_on("engine1"))

    assert (again(job).status, again(job).reason) == ("FAILED", "an odd status")
    assert cpus_of_engines()["engine1"][0]["status"] == "RUNNING"
    engine.executions["E1"] = Ended(status=JobStatus.FAILED, reason="it is over")
    checker.check(jobs_on("engine1"))
    assert cpus_of_engines()["engine1"][0]["status"] == "FREE"
    assert again(job).reason == "an odd status"
