"""ENGINES and HEALTH: capacity and what is known of an engine; and placing a job: both rows or neither."""

from __future__ import annotations

import pytest

from orchestrator.errors import UsageError
from orchestrator.state import EngineState, JobStatus
from orchestrator.store.engines import (
    add_cpus,
    draining_engines,
    engine_states,
    free_deserted,
    placed_by_engine,
    remove_cpu,
    seed_cpus,
    set_draining,
    set_health,
    stray_cpus,
)
from orchestrator.store.models import Engines, Events, Health, Queue
from orchestrator.store.placing import capacities, has_waiting_jobs, hold, place, waiting_jobs
from orchestrator.store.running import ended, intend_start, started
from orchestrator.store.taking import ask_end
from orchestrator.store.views import cpus_of_engines, events_of

from .make import again, placed, queued

pytestmark = pytest.mark.usefixtures("store")


def test_the_settings_seed_an_engine_once_and_the_table_rules_after_that() -> None:
    assert seed_cpus("engine1", 2)
    assert not seed_cpus("engine1", 4)
    assert [each["cpu"] for each in cpus_of_engines()["engine1"]] == ["CPU1", "CPU2"]
    assert not seed_cpus("engine2", 0)
    assert "engine2" not in cpus_of_engines()


def test_cpus_are_added_under_the_next_free_names() -> None:
    seed_cpus("engine1", 3)
    remove_cpu("engine1", "CPU2")
    assert add_cpus("engine1", 2) == ["CPU2", "CPU4"]


def test_a_free_cpu_is_removed_and_a_busy_one_stays() -> None:
    seed_cpus("engine1", 2)
    job = placed()
    with pytest.raises(UsageError, match=f"in use by job {job.id}"):
        remove_cpu("engine1", "CPU1")
    remove_cpu("engine1", "CPU2")
    assert [each["cpu"] for each in cpus_of_engines()["engine1"]] == ["CPU1"]
    with pytest.raises(UsageError, match="there is no CPU9 of engine1"):
        remove_cpu("engine1", "CPU9")


def test_a_change_of_health_is_an_event_and_no_change_is_none() -> None:
    for _ in range(3):
        set_health("engine1", "delphix", EngineState.DOWN, "no answer")
    assert engine_states() == {"engine1": (EngineState.DOWN, "no answer")}
    since = Health.get_by_id("engine1").since
    set_health("engine1", "delphix", EngineState.DOWN, "status 500")
    assert engine_states() == {"engine1": (EngineState.DOWN, "status 500")}
    assert Health.get_by_id("engine1").since == since
    set_health("engine1", "delphix", EngineState.UP, None)
    assert [event.move for event in Events.select()] == ["engine DOWN", "engine UP"]


def test_draining_is_an_operators_word_that_health_does_not_undo() -> None:
    set_draining("engine1", draining=True)
    set_health("engine1", "delphix", EngineState.UP, None)
    assert draining_engines() == {"engine1"}
    assert engine_states()["engine1"][0] is EngineState.DRAINING
    set_draining("engine1", draining=False)
    assert draining_engines() == set()
    assert engine_states()["engine1"][0] is EngineState.UP


def test_waiting_jobs_come_by_priority_then_by_age() -> None:
    for name, priority in (("a", 50), ("b", 90), ("c", 50), ("d", 0), ("e", 90)):
        queued(name, priority=priority)
    hold(queued("held", priority=100).id)
    for first in (1, 2, 5, 9):  # however many are read at once
        assert [job.name for job in waiting_jobs(first)] == ["b", "e", "a", "c", "d"]


def test_held_and_ended_jobs_do_not_wait() -> None:
    hold(queued("held").id)
    ask_end(queued("gone").id, JobStatus.CANCELLED, "x")
    assert not has_waiting_jobs()
    queued("waits")
    assert has_waiting_jobs()


def test_a_job_and_its_cpu_are_placed_together() -> None:
    seed_cpus("engine1", 1)
    job = queued()
    assert place([(job, ("engine1", "CPU1"))]) == 1
    assert (again(job).status, again(job).engine, again(job).cpu) == ("SCHEDULED", "engine1", "CPU1")
    assert cpus_of_engines()["engine1"] == [{"cpu": "CPU1", "status": "JUST_INSERTED", "job": "MASK_CRM"}]
    assert [event["move"] for event in events_of(job.id)] == [
        "-> QUEUED", "QUEUED -> SCHEDULING", "SCHEDULING -> SCHEDULED",
    ]  # fmt: skip


def test_a_job_whose_cpu_was_taken_meanwhile_waits_on() -> None:
    seed_cpus("engine1", 1)
    first, second = queued("a"), queued("b")
    assert place([(first, ("engine1", "CPU1")), (second, ("engine1", "CPU1"))]) == 1
    assert (again(second).status, again(second).engine) == ("QUEUED", None)
    assert place([(second, ("engine1", "CPU9"))]) == 0
    assert again(second).status == "QUEUED"


def test_a_cpu_whose_job_was_taken_meanwhile_stays_free() -> None:
    seed_cpus("engine1", 2)
    job = queued()
    assert place([(job, ("engine1", "CPU1")), (job, ("engine1", "CPU2"))]) == 1
    assert [each["status"] for each in cpus_of_engines()["engine1"]] == ["JUST_INSERTED", "FREE"]
    gone = queued("gone")
    ask_end(gone.id, JobStatus.CANCELLED, "x")
    assert place([(gone, ("engine1", "CPU2"))]) == 0
    assert cpus_of_engines()["engine1"][1]["status"] == "FREE"


def test_capacity_counts_rows_jobs_and_what_is_free() -> None:
    seed_cpus("engine1", 3)
    placed()
    found = capacities()["engine1"]
    assert (found.cpus, found.jobs, found.free) == (3, 1, ["CPU2", "CPU3"])


@pytest.mark.parametrize("back", ["CPU1", "CPU9"])
def test_a_cpu_deleted_and_inserted_under_a_running_job_does_not_add_capacity(back: str) -> None:
    seed_cpus("engine1", 1)
    job = placed()
    intend_start(job, "host/me", None)
    started(again(job), "1")
    Engines.delete().where(Engines.engine == "engine1").execute()
    Engines.insert(engine="engine1", cpu=back).execute()
    found = capacities()["engine1"]
    assert (found.cpus, found.jobs, found.free) == (1, 1, [back])
    ended(again(job), JobStatus.FINISHED, None)
    assert capacities()["engine1"].jobs == 0


def test_jobs_on_an_engine_without_any_row_are_counted() -> None:
    seed_cpus("engine1", 1)
    placed()
    Engines.delete().execute()
    assert (capacities()["engine1"].cpus, capacities()["engine1"].jobs) == (0, 1)


def test_a_cpu_whose_job_was_deleted_from_queue_by_hand_is_free_again() -> None:
    seed_cpus("engine1", 3)
    lost, kept, told = placed("LOST"), placed("KEPT", cpu="CPU2"), placed("TOLD", cpu="CPU3")
    for job in (lost, told):
        intend_start(job, "host/me", None)
        started(again(job), str(job.id))
    ended(again(told), JobStatus.TIMEOUT, "the engine is silent", cpu_is_free=False)
    assert free_deserted() == []
    Engines.insert(engine="engine1", cpu="CPU4", job_id=99).execute()
    Queue.delete().where(Queue.id == lost.id).execute()

    assert free_deserted() == [("engine1", "CPU1", lost.id), ("engine1", "CPU4", 99)]
    assert free_deserted() == []
    assert [(each["cpu"], each["status"]) for each in cpus_of_engines()["engine1"]] == [
        ("CPU1", "FREE"), ("CPU2", "JUST_INSERTED"), ("CPU3", "RUNNING"), ("CPU4", "FREE"),
    ]  # fmt: skip
    assert events_of(lost.id)[-1]["move"] == "CPU free"
    assert again(kept).cpu == "CPU2"


def test_rows_with_a_status_that_does_not_exist_are_found() -> None:
    seed_cpus("engine1", 1)
    Engines.insert(engine="engine1", cpu="CPU2", status="free").execute()
    assert stray_cpus() == [("engine1", "CPU2", "free")]


def test_jobs_are_counted_by_the_engine_that_they_were_placed_on() -> None:
    seed_cpus("engine1", 3)
    placed("A")
    ended(again(placed("B", cpu="CPU2")), JobStatus.FAILED, "x")
    queued("C")
    assert placed_by_engine() == {"engine1": 1}
