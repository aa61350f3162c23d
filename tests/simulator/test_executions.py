"""Executions: how they wait, run and end, and what they report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from orchestrator.simulator import Simulator

Start = Callable[[int], Any]
PassTime = Callable[[float], None]
ShownStatus = Callable[[int], str]
LogIn = Callable[[Simulator], requests.Session]


def job_id(simulator: Simulator, **fields: Any) -> int:
    return int(simulator.put_job(**{"name": "JOB", "environment": "DEMO"} | fields)["maskingJobId"])


def test_an_execution_goes_from_running_to_succeeded_when_its_time_is_over(
    client: requests.Session, start: Start, pass_time: PassTime
) -> None:
    assert start(1) == {
        "executionId": 1,
        "jobId": 1,
        "connectorType": None,
        "sourceConnectorId": None,
        "targetConnectorId": None,
        "status": "RUNNING",
        "rowsMasked": 0,
        "rowsTotal": -1,
        "submitTime": "2023-11-14T22:13:20.000+0000",
        "startTime": "2023-11-14T22:13:20.000+0000",
        "endTime": None,
    }
    pass_time(9.5)
    running = client.get("/executions/1").json()
    assert (running["status"], running["rowsMasked"], running["rowsTotal"]) == ("RUNNING", 95_000, 100_000)
    pass_time(60)
    ended = client.get("/executions/1").json()
    assert (ended["status"], ended["rowsMasked"], ended["rowsTotal"]) == ("SUCCEEDED", 100_000, 100_000)
    assert ended["endTime"] == "2023-11-14T22:13:30.000+0000"  # when it was due, not when somebody looked


def test_an_execution_that_ended_has_masked_all_rows_in_spite_of_rounding(
    simulator: Simulator, client: requests.Session, start: Start, pass_time: PassTime
) -> None:
    for number in range(20):
        execution = start(job_id(simulator, seconds=0.1 + number / 7))
        pass_time(3.3)
        assert client.get(f"/executions/{execution['executionId']}").json()["rowsMasked"] == 100_000


@pytest.mark.parametrize(
    ("outcome", "status", "events"),
    [
        ("succeed", "SUCCEEDED", []),
        ("fail", "FAILED", [("JOB_ABORTED", "CRITICAL", "UNHANDLED_EXCEPTION", 1)]),
        ("warn", "WARNING", [("UNMASKED_DATA", "WARNING", "PATTERN_MATCH_FAILURE", 100)]),
        ("leak", "SUCCEEDED", [("UNMASKED_DATA", "WARNING", "PATTERN_MATCH_FAILURE", 100)]),
        ("odd", "PAUSED_BY_MARTIANS", []),
        ("hang", "RUNNING", []),
    ],
)
def test_each_outcome_has_its_status_and_its_events(
    simulator: Simulator,
    client: requests.Session,
    start: Start,
    pass_time: PassTime,
    outcome: str,
    status: str,
    events: list[object],
) -> None:
    execution_id = start(job_id(simulator, outcome=outcome))["executionId"]
    assert client.get(f"/execution-events?execution_id={execution_id}").json()["responseList"] == []
    pass_time(10)
    execution = client.get(f"/executions/{execution_id}").json()
    assert execution["status"] == status
    assert (execution["endTime"] is None) == (outcome == "hang")
    rows = client.get(f"/execution-events?execution_id={execution_id}").json()["responseList"]
    assert [(row["eventType"], row["severity"], row["cause"], row["count"]) for row in rows] == events
    for row in rows:
        assert row["timeStamp"] == execution["endTime"]
        assert row["executionId"] == execution_id


def test_the_demo_has_the_jobs_that_it_promises(client: requests.Session, start: Start, pass_time: PassTime) -> None:
    ends = {}
    for job in client.get("/masking-jobs").json()["responseList"]:
        execution_id = start(job["maskingJobId"])["executionId"]
        pass_time(10)
        events = client.get(f"/execution-events?execution_id={execution_id}").json()["responseList"]
        status = client.get(f"/executions/{execution_id}").json()["status"]
        ends[job["jobName"]] = (status, *(event["eventType"] for event in events))
    assert ends == {
        "MASK_CRM": ("SUCCEEDED",),
        "MASK_HR": ("SUCCEEDED",),
        "MASK_SALES": ("SUCCEEDED",),
        "MASK_BILLING": ("SUCCEEDED",),
        "MASK_BROKEN": ("FAILED", "JOB_ABORTED"),
        "MASK_WARNS": ("WARNING", "UNMASKED_DATA"),
        "MASK_LEAKS": ("SUCCEEDED", "UNMASKED_DATA"),
    }


def test_a_job_that_fails_does_so_half_way(client: requests.Session, start: Start, pass_time: PassTime) -> None:
    start(5)
    pass_time(5)
    failed = client.get("/executions/1").json()
    assert (failed["status"], failed["rowsMasked"]) == ("FAILED", 50_000)


def test_a_job_of_no_time_has_ended_when_its_start_is_answered(simulator: Simulator, start: Start) -> None:
    ended = start(job_id(simulator, seconds=0))
    assert (ended["status"], ended["rowsMasked"]) == ("SUCCEEDED", 100_000)


def test_an_execution_past_the_limit_is_queued_until_one_ends(
    client: requests.Session, start: Start, status: ShownStatus, pass_time: PassTime
) -> None:
    start(1)
    pass_time(4)
    start(2)
    queued = start(3)
    assert (queued["status"], queued["startTime"], queued["rowsTotal"]) == ("QUEUED", None, -1)
    assert client.get("/execution-components?execution_id=3").json()["responseList"][0]["status"] == "WAITING"
    pass_time(6)
    assert [status(each) for each in (1, 2, 3)] == ["SUCCEEDED", "RUNNING", "RUNNING"]
    pass_time(100)
    assert client.get("/executions/3").json()["endTime"] == "2023-11-14T22:13:40.000+0000"


def test_executions_start_in_the_order_in_which_they_were_submitted(
    start: Start, status: ShownStatus, pass_time: PassTime
) -> None:
    ids = [start(1)["executionId"] for _ in range(5)]
    assert [status(each) for each in ids] == ["RUNNING"] * 2 + ["QUEUED"] * 3
    pass_time(10)
    assert [status(each) for each in ids] == ["SUCCEEDED"] * 2 + ["RUNNING"] * 2 + ["QUEUED"]


def test_an_execution_past_the_memory_is_queued_until_there_is_enough(
    hands: Callable[[], float], pass_time: PassTime, log_in: LogIn
) -> None:
    with Simulator(seconds=10, cpus=7, memory=4096, clock=hands) as simulator:
        client = log_in(simulator)
        small, large = job_id(simulator, max_memory=1024), job_id(simulator, name="LARGE", max_memory=4096)

        def begin(job: int) -> str:
            return str(client.post("/executions", json={"jobId": job}).json()["status"])

        assert [begin(small), begin(large), begin(small)] == ["RUNNING", "QUEUED", "QUEUED"]
        pass_time(10)
        rows = client.get("/executions").json()["responseList"]
        assert [row["status"] for row in rows] == ["SUCCEEDED", "RUNNING", "QUEUED"]
        pass_time(10)
        rows = client.get("/executions").json()["responseList"]
        assert [row["status"] for row in rows] == ["SUCCEEDED", "SUCCEEDED", "RUNNING"]


@pytest.mark.parametrize("expected", [None, "QUEUED"])
def test_a_queued_execution_is_cancelled_without_ever_having_started(
    client: requests.Session, start: Start, status: ShownStatus, expected: str | None
) -> None:
    for job in (1, 2, 3, 4):
        start(job)
    answer = client.post("/executions/3/cancel", params={"expected_status": expected} if expected else {})
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["startTime"]) == ("CANCELLED", None)
    assert answer.json()["endTime"]
    assert status(4) == "QUEUED"


def test_a_running_execution_that_is_cancelled_makes_room(
    client: requests.Session, start: Start, status: ShownStatus, pass_time: PassTime
) -> None:
    for job in (1, 2, 3):
        start(job)
    pass_time(4)
    cancelled = client.post("/executions/1/cancel", json={"expected_status": "RUNNING"}).json()
    assert (cancelled["status"], cancelled["rowsMasked"]) == ("CANCELLED", 40_000)
    assert status(3) == "RUNNING"
    pass_time(100)
    assert status(1) == "CANCELLED"
    assert client.get("/executions/1").json()["rowsMasked"] == 40_000
    assert client.get("/execution-events").json()["responseList"] == []


def test_a_hanging_execution_ends_by_being_cancelled(
    simulator: Simulator, client: requests.Session, start: Start, status: ShownStatus, pass_time: PassTime
) -> None:
    start(job_id(simulator, outcome="hang"))
    pass_time(1_000_000)
    assert status_of_new_token(simulator, client) == "RUNNING"
    assert client.post("/executions/1/cancel").json()["status"] == "CANCELLED"
    assert status(1) == "CANCELLED"


def status_of_new_token(simulator: Simulator, client: requests.Session) -> str:
    login = client.post("/login", json={"username": "admin", "password": "admin"})
    client.headers["Authorization"] = login.json()["Authorization"]
    return str(client.get("/executions/1").json()["status"])


def test_an_execution_that_is_not_of_the_expected_status_is_not_cancelled(
    client: requests.Session, start: Start, status: ShownStatus
) -> None:
    start(1)
    expected = {"expected_status": "QUEUED"}
    for query, body in ((expected, None), (None, expected)):
        answer = client.post("/executions/1/cancel", params=query, json=body)
        assert answer.status_code == 409
        assert "RUNNING" in answer.json()["errorMessage"]
    assert client.post("/executions/1/cancel", data=b"{").status_code == 400
    assert status(1) == "RUNNING"


def test_an_execution_that_has_ended_is_not_cancelled(
    client: requests.Session, start: Start, pass_time: PassTime, status: ShownStatus
) -> None:
    start(1)
    pass_time(10)
    answer = client.post("/executions/1/cancel")
    assert answer.status_code == 409
    assert "SUCCEEDED" in answer.json()["errorMessage"]
    assert status(1) == "SUCCEEDED"
    assert client.post("/executions/99/cancel").status_code == 404


def test_an_execution_keeps_the_job_as_it_was_at_the_start(
    simulator: Simulator, start: Start, status: ShownStatus, pass_time: PassTime
) -> None:
    start(1)
    simulator.put_job(name="MASK_CRM", environment="DEMO", outcome="fail", seconds=1)
    start(1)
    pass_time(10)
    assert [status(1), status(2)] == ["SUCCEEDED", "FAILED"]


def test_each_execution_has_a_component(client: requests.Session, start: Start, pass_time: PassTime) -> None:
    start(1)
    start(2)
    pass_time(10)
    rows = client.get("/execution-components").json()["responseList"]
    assert [row["executionId"] for row in rows] == [1, 2]
    (row,) = client.get("/execution-components?execution_id=2").json()["responseList"]
    assert (row["status"], row["rowsMasked"], row["componentName"]) == ("SUCCEEDED", 100_000, "MASK_HR_TABLE")
    assert client.get("/execution-components?execution_id=99").status_code == 404
    assert client.get("/execution-events?execution_id=99").status_code == 404


def test_the_ids_of_two_engines_differ_by_their_first(hands: Callable[[], float], log_in: LogIn) -> None:
    with Simulator(first_id=500, clock=hands) as simulator:
        client = log_in(simulator)
        assert client.get("/environments").json()["responseList"][0]["environmentId"] == 500
        assert client.get("/masking-jobs").json()["responseList"][0]["maskingJobId"] == 500
        assert client.post("/executions", json={"jobId": 500}).json()["executionId"] == 500
        assert client.post("/executions", json={"jobId": 1}).status_code == 404
