"""The step schedule on real rows: what it places, ends and asks."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from orchestrator.engines.base import Knows, Lookup
from orchestrator.process import identify
from orchestrator.scheduler.schedule import KnownEngine, cancel_for_gone_callers, schedule, tidy
from orchestrator.state import EngineState, JobStatus
from orchestrator.store.engines import seed_cpus, set_draining
from orchestrator.store.models import Engines, Queue
from orchestrator.store.running import intend_start, started
from orchestrator.store.views import count_by_status

from .make import again, placed, queued

pytestmark = pytest.mark.usefixtures("store")


def known(knows: Knows = Knows.YES, asked: list[str] | None = None, **fields: Any) -> KnownEngine:
    note = asked if asked is not None else []
    given: dict[str, Any] = {"state": EngineState.UP, "lookup": lambda _: Lookup(knows, "no such job")}
    return KnownEngine(**given | {"ask": lambda: note.append("asked")} | fields)


def test_waiting_jobs_are_placed_and_the_engines_that_got_one_are_told() -> None:
    seed_cpus("engine1", 2)
    seed_cpus("engine2", 1)
    jobs = [queued(f"N{number}") for number in range(5)]
    assert schedule({"engine1": known(), "engine2": known()}).engines == {"engine1", "engine2"}
    assert [again(job).status for job in jobs] == ["SCHEDULED"] * 3 + ["QUEUED"] * 2
    assert schedule({"engine1": known(), "engine2": known()}).engines == frozenset()


def test_rows_of_an_engine_that_is_not_in_the_settings_get_nothing() -> None:
    seed_cpus("unheard-of", 5)
    queued()
    assert schedule({"engine1": known()}).engines == frozenset()
    assert count_by_status() == {"QUEUED": 1}


def test_a_draining_engine_gets_nothing_until_it_is_resumed() -> None:
    seed_cpus("engine1", 1)
    queued()
    set_draining("engine1", draining=True)
    assert schedule({"engine1": known()}).engines == frozenset()
    set_draining("engine1", draining=False)
    assert schedule({"engine1": known()}).engines == {"engine1"}


def test_a_job_that_nobody_knows_does_not_wait_for_the_end_of_a_drain() -> None:
    seed_cpus("engine1", 1)
    set_draining("engine2", draining=True)
    job = queued()
    assert schedule({"engine1": known(Knows.NO), "engine2": known(Knows.NO)}).failed
    assert again(job).status == "FAILED"


def test_a_job_that_nobody_knows_fails_with_the_reason() -> None:
    seed_cpus("engine1", 1)
    job = queued()
    assert schedule({"engine1": known(Knows.NO)}).failed
    assert again(job).status == "FAILED"
    assert again(job).reason == "no engine knows job MASK_CRM; asked: engine1: no such job"


def test_an_engine_is_asked_anew_for_a_job_younger_than_what_it_told() -> None:
    seed_cpus("engine1", 1)
    job = queued()
    asked: list[str] = []
    schedule({"engine1": known(Knows.ASK, asked)})
    assert (asked, again(job).status) == (["asked"], "QUEUED")


@pytest.mark.parametrize("back", ["CPU1", "CPU9"])
def test_deleting_and_inserting_a_cpu_under_a_running_job_places_no_second_one(back: str) -> None:
    seed_cpus("engine1", 1)
    running = placed()
    intend_start(running, "host/me", None)
    started(again(running), "1")
    Engines.delete().execute()
    Engines.insert(engine="engine1", cpu=back).execute()
    waiting = queued("OTHER")
    schedule({"engine1": known()})
    assert again(waiting).status == "QUEUED"
    Engines.insert(engine="engine1", cpu="CPU10").execute()
    schedule({"engine1": known()})
    assert again(waiting).status == "SCHEDULED"


def caller_of(pid: int) -> str:
    return str(identify(pid))


def test_a_job_whose_caller_is_gone_is_cancelled_where_that_was_asked() -> None:
    child = subprocess.Popen(["sleep", "30"])
    tied, kept = queued("tied", caller=caller_of(child.pid)), queued("kept", caller=caller_of(child.pid))
    here, elsewhere = queued("here", caller=caller_of(os.getpid())), queued("elsewhere", host="other", caller="1:2:x")
    Queue.update(on_caller_exit="cancel").where(Queue.name != "kept").execute()
    assert list(cancel_for_gone_callers("host")) == []
    child.kill()
    child.wait()
    assert [job.id for job in cancel_for_gone_callers("host")] == [tied.id]
    assert (again(tied).status, again(tied).reason) == (JobStatus.CANCELLED, "its caller is gone")
    assert {again(job).status for job in (kept, here, elsewhere)} == {"QUEUED"}


def test_a_caller_that_names_no_process_counts_as_gone() -> None:
    odd, here = queued("odd", caller="12345"), queued("here", caller=caller_of(os.getpid()))
    Queue.update(on_caller_exit="cancel").execute()
    assert [job.id for job in cancel_for_gone_callers("host")] == [odd.id]
    assert (again(odd).status, again(here).status) == ("CANCELLED", "QUEUED")


def test_what_was_done_to_the_tables_by_hand_is_put_right_or_told_once(caplog: pytest.LogCaptureFixture) -> None:
    seed_cpus("engine1", 2)
    lost = placed("LOST")
    Queue.delete().where(Queue.id == lost.id).execute()
    Engines.update(status="free").where(Engines.cpu == "CPU2").execute()
    told: set[tuple[str, str, str]] = set()
    assert [tidy(told) for _ in range(3)] == [True, False, False]
    assert caplog.messages == [
        f"engine1 CPU1: FREE again: job {lost.id}, which held it, has no row in QUEUE",
        "engine1 CPU2: status 'free' is none that a CPU can have: it is never used",
    ]
    waiting = queued()
    schedule({"engine1": known()})
    assert again(waiting).cpu == "CPU1"
