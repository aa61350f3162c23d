"""The main job, end to end: real programs, real bash callers, a simulated engine."""

from __future__ import annotations

import itertools
import time

import pytest

from orchestrator.simulator import Simulator
from tests.house import House, wait_for


def test_a_masking_job_that_succeeds_turns_its_light_green(masking_house: House) -> None:
    with Simulator(seconds=0.2) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        caller = masking_house.call("-e", "DEMO", "MASK_CRM")

        assert caller.wait(20) == 0
        assert [each["jobName"] for each in engine.executions()] == ["MASK_CRM"]
        [job] = masking_house.json("jobs")
        assert (job["status"], job["engine"], job["cpu"]) == ("FINISHED", "engine1", "CPU1")
        assert (job["rows_masked"], job["rows_total"]) == (100_000, 100_000)
        wait_for(lambda: masking_house.json("jobs")[0]["released_at"])


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("MASK_BROKEN", "FAILED"),
        ("MASK_WARNS", "UNMASKED_DATA"),
        ("MASK_LEAKS", "UNMASKED_DATA"),
    ],
)
def test_a_masking_job_that_leaves_data_unmasked_is_never_green(masking_house: House, job: str, why: str) -> None:
    with Simulator(seconds=0.1) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        caller = masking_house.call(job)
        _, told = caller.communicate(timeout=20)

        assert caller.returncode == 1
        assert told.startswith("FAILED id=1 job=" + job)
        assert why in told.splitlines()[0]


def test_a_caller_may_take_unmasked_data_as_finished_where_it_says_so(masking_house: House) -> None:
    with Simulator(seconds=0.1) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()

        assert masking_house.call("MASK_WARNS", "on_warning=finish").wait(20) == 0
        assert "UNMASKED_DATA" in masking_house.json("jobs")[0]["reason"]


def test_a_job_that_no_engine_knows_fails_with_the_engines_that_were_asked(masking_house: House) -> None:
    with Simulator() as one, Simulator() as two:
        masking_house.add_engine("engine1", one.url)
        masking_house.add_engine("engine2", two.url)
        masking_house.start()
        caller = masking_house.call("MASK_NOTHING")
        _, told = caller.communicate(timeout=20)

        assert caller.returncode == 1
        assert 'reason="no engine knows job MASK_NOTHING; asked: engine1: ' in told
        assert "engine2: " in told


def test_a_job_that_was_made_on_the_engine_a_moment_ago_is_found(masking_house: House) -> None:
    with Simulator(seconds=0.1) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        assert masking_house.call("MASK_CRM").wait(20) == 0
        engine.put_job(name="MASK_NEW", environment="DEMO", seconds=0.1, outcome="succeed")

        assert masking_house.call("MASK_NEW").wait(20) == 0


def test_an_engine_that_refuses_the_login_shows_why_and_holds_up_no_other(masking_house: House) -> None:
    with Simulator(password="another") as refusing, Simulator(seconds=0.1) as serving:
        masking_house.add_engine("engine1", refusing.url)
        masking_house.add_engine("engine2", serving.url)
        masking_house.start()
        masking_house.drop("ONLY_THERE", "job=MASK_CRM", "engine=engine1")

        assert masking_house.call("MASK_HR").wait(20) == 0
        engines = {each["engine"]: each for each in masking_house.json("engine", "list")}
        assert engines["engine1"]["state"] == "DOWN"
        assert "login of admin was refused" in engines["engine1"]["reason"]
        assert masking_house.light("ONLY_THERE") == ""
        assert masking_house.job("ONLY_THERE")["status"] == "QUEUED"


def test_no_more_run_than_there_are_cpus_and_the_highest_priority_goes_first(masking_house: House) -> None:
    with Simulator(seconds=0.3, cpus=7) as engine:
        masking_house.add_engine("engine1", engine.url, cpus=1)
        names = [f"J{number}" for number in range(4)]
        for number, name in enumerate(names):
            masking_house.drop(name, "job=MASK_CRM", f"priority={number * 10}")
        masking_house.start()
        for name in names:
            assert masking_house.verdict(name) is None

        rows = masking_house.query("SELECT name FROM QUEUE ORDER BY started_at")
        assert [name for (name,) in rows] == ["J3", "J2", "J1", "J0"]
        runs = sorted((each["startTime"], each["endTime"]) for each in engine.executions())
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(runs))


def test_a_row_inserted_by_the_sqlite_shell_adds_a_cpu_and_deleting_a_free_one_removes_it(masking_house: House) -> None:
    with Simulator(seconds=30) as engine:
        masking_house.add_engine("engine1", engine.url, cpus=1)
        masking_house.start()
        masking_house.drop("FIRST", "job=MASK_CRM")
        masking_house.drop("SECOND", "job=MASK_HR")
        masking_house.wait_for_status("FIRST", "RUNNING")
        masking_house.query("INSERT INTO ENGINES(engine, cpu) VALUES('engine1', 'CPU2')")
        began = time.monotonic()
        masking_house.wait_for_status("SECOND", "RUNNING")

        assert time.monotonic() - began < 10  # 2 s are promised; the machine may be busy
        masking_house.run("engine", "add", "engine1")
        masking_house.query("DELETE FROM ENGINES WHERE engine = 'engine1' AND status = 'FREE'")
        assert len(masking_house.json("engine", "list")[0]["cpus"]) == 2


def test_a_drained_engine_gets_nothing_until_it_is_resumed(masking_house: House) -> None:
    with Simulator(seconds=0.1) as one, Simulator(seconds=0.1) as two:
        masking_house.add_engine("engine1", one.url)
        masking_house.add_engine("engine2", two.url)
        masking_house.start()
        masking_house.run("engine", "drain", "engine1")
        for number in range(4):
            assert masking_house.call(f"MASK_{['CRM', 'HR', 'SALES', 'BILLING'][number]}").wait(20) == 0
        assert (len(one.executions()), len(two.executions())) == (0, 4)

        masking_house.run("engine", "resume", "engine1")
        assert masking_house.call("MASK_CRM", "engine=engine1").wait(20) == 0


def test_a_failed_job_with_retries_is_tried_again_on_another_engine(masking_house: House) -> None:
    with Simulator(seconds=0.1) as one, Simulator(seconds=0.1, first_id=900) as two:
        one.put_job(name="MASK_CRM", environment="DEMO", outcome="fail")
        masking_house.add_engine("engine1", one.url)
        masking_house.add_engine("engine2", two.url)
        masking_house.start()
        masking_house.drop("FIRST", "job=MASK_HR", "engine=engine1")
        assert masking_house.verdict("FIRST") is None  # so that engine1 is known to have its jobs
        masking_house.drop("AGAIN", "job=MASK_CRM", "retries=1")

        assert masking_house.verdict("AGAIN") is None
        assert [each["jobName"] for each in one.executions()] == ["MASK_HR", "MASK_CRM"]
        assert [each["jobName"] for each in two.executions()] == ["MASK_CRM"]
        assert masking_house.job("AGAIN")["attempts"] == 2


def test_a_command_job_ends_with_its_own_exit_status_and_its_output_is_kept(house: House) -> None:
    house.start()
    caller = house.call("REPORT", "command=sh", "param.line=echo said; exit 7", "engine=local")

    assert caller.wait(20) == 7
    [log] = (house.folder / "log" / "jobs").iterdir()
    assert log.read_text() == "said\n"


def test_a_held_job_waits_until_it_is_released(house: House) -> None:
    house.run("status", status=1)
    house.query("DELETE FROM ENGINES")
    house.start()
    wait_for(lambda: house.query("SELECT 1 FROM ENGINES"))  # they are made after it says that it runs
    house.query("DELETE FROM ENGINES")
    house.drop("LATER", "command=true")
    house.wait_for_status("LATER", "QUEUED")
    house.run("hold", "LATER")
    house.run("engine", "add", "local")
    house.drop("NOW", "command=true")
    assert house.verdict("NOW") is None
    assert house.job("LATER")["status"] == "HELD"

    house.run("release", "LATER")
    assert house.verdict("LATER") is None
