"""Two of each program by mistake, on one database: safe, and said."""

from __future__ import annotations

import time

from orchestrator.simulator import Simulator
from tests.faults.points import SETTINGS, WHOLE
from tests.house import House

JOBS = 1000 if WHOLE else 40
CPUS = 3


def test_two_of_each_program_start_each_job_once_and_say_that_they_are_two(masking_house: House) -> None:
    house = masking_house
    with Simulator(seconds=0.1, cpus=2 * CPUS) as engine:
        house.add_engine("engine1", engine.url, cpus=CPUS, more=SETTINGS)
        started = [house.start(program) for program in ("watch", "schedule", "watch", "schedule")]
        house.wait_for_engine("engine1", "UP")
        names = [f"J{number}" for number in range(JOBS)]
        for name in names:
            house.drop(name, "job=MASK_CRM")
        busiest = 0
        deadline = time.monotonic() + 30 + JOBS
        while any(house.light(name) == "" for name in names):
            assert time.monotonic() < deadline, house.log.read_text()
            busiest = max(busiest, sum(each["status"] in ("RUNNING", "QUEUED") for each in engine.executions()))
            time.sleep(0.02)
        assert {house.light(name) for name in names} == {None}
        assert len(engine.executions()) == JOBS
        assert 0 < busiest <= CPUS
        assert house.query("SELECT count(*), max(attempts) FROM QUEUE") == [(JOBS, 1)]
        assert house.query("SELECT DISTINCT status, job_id FROM ENGINES") == [("FREE", None)]

        log = house.log.read_text()
        assert f"another `watch` runs already, pid {started[0].pid}: two do no harm, one is enough" in log
        assert f"another `schedule` runs already, pid {started[1].pid}: two do no harm, one is enough" in log
        assert log.count("runs already") == 2
        assert "Traceback" not in log and "ERROR" not in log

        house.kill(started[0])
        house.kill(started[1])
        house.drop("AFTER", "job=MASK_CRM")
        assert house.verdict("AFTER") is None
        house.start("up")
        assert house.log.read_text().count("runs already") >= 2
    print(f"\n{JOBS} jobs, two of each program: each started once, at most {busiest} at once on {CPUS} CPUs")


def test_one_of_each_program_is_not_two(house: House) -> None:
    for program in ("watch", "schedule"):
        house.start(program)
    for program in ("watch", "schedule"):
        house.kill(house.programs.pop(0))
        house.start(program)
    assert "runs already" not in house.log.read_text()
