"""The control routes and the same from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from orchestrator.simulator import Simulator
from orchestrator.simulator.catalogue import CatalogueError

Start = Callable[[int], Any]


def test_faults_are_set_and_shown_without_a_token(simulator: Simulator, stranger: requests.Session) -> None:
    set_first = stranger.post("/_simulator/faults", json={"lost_answer": 1, "slow": 0.5})
    assert set_first.json() == {"lost_answer": 1, "slow": 0.5}
    assert stranger.post("/_simulator/faults", json={}).json() == {"lost_answer": 1, "slow": 0.5}
    assert stranger.post("/_simulator/faults", json={"slow": 0, "vanish": [3]}).status_code == 200
    assert stranger.get("/_simulator/faults").json() == {"lost_answer": 1, "vanish": [3]} == simulator.faults()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"earthquake": 1}', b'{"hang": -1}', b'{"slow": NaN}'])
def test_faults_that_cannot_be_answer_400_with_one_line(
    simulator: Simulator, stranger: requests.Session, body: bytes
) -> None:
    answer = stranger.post("/_simulator/faults", data=body)
    assert answer.status_code == 400
    assert len(answer.json()["errorMessage"].splitlines()) == 1
    assert simulator.faults() == {}


def test_everything_ever_started_is_listed_with_its_names(
    simulator: Simulator, stranger: requests.Session, client: requests.Session, start: Start
) -> None:
    started = [start(1), start(2)]
    rows = stranger.get("/_simulator/executions").json()
    assert rows == simulator.executions()
    assert [row["jobName"] for row in rows] == ["MASK_CRM", "MASK_HR"]
    assert {row["environmentName"] for row in rows} == {"DEMO"}
    assert [{key: row[key] for key in started[0]} for row in rows] == started


def test_a_reset_forgets_executions_faults_and_tokens(
    simulator: Simulator, stranger: requests.Session, client: requests.Session, start: Start
) -> None:
    start(1)
    simulator.fault(status_500=5)
    assert stranger.post("/_simulator/reset").json() == {}
    assert simulator.executions() == []
    assert simulator.faults() == {}
    assert client.get("/executions").status_code == 401
    login = client.post("/login", json={"username": "admin", "password": "admin"}).json()
    again = client.post("/executions", json={"jobId": 1}, headers=login).json()
    assert (again["executionId"], again["status"]) == (2, "RUNNING")


def test_a_job_is_added_changed_and_removed(stranger: requests.Session, client: requests.Session) -> None:
    added = stranger.post("/_simulator/jobs", json={"name": "NEW", "environment": "OTHER", "max_memory": 2048})
    job = added.json()
    assert (job["jobName"], job["maxMemory"]) == ("NEW", 2048)
    path = f"/masking-jobs/{job['maskingJobId']}"
    assert client.get(path).json() == job
    assert client.get(f"/environments/{job['environmentId']}").json()["environmentName"] == "OTHER"
    body = {"name": "NEW", "environment": "OTHER", "multi_tenant": True}
    assert stranger.post("/_simulator/jobs", json=body).json() == job | {"multiTenant": True}
    body = {"name": "NEW", "environment": "OTHER", "remove": True}
    assert stranger.post("/_simulator/jobs", json=body).status_code == 200
    assert client.get(path).status_code == 404
    assert stranger.post("/_simulator/jobs", json=body).status_code == 400


def test_a_job_can_be_moved_to_another_id(simulator: Simulator, client: requests.Session) -> None:
    assert simulator.put_job(name="MASK_HR", environment="DEMO", id=77)["maskingJobId"] == 77
    assert client.get("/masking-jobs/2").status_code == 404
    assert client.get("/masking-jobs/77").json()["jobName"] == "MASK_HR"
    simulator.remove_job(name="MASK_CRM", environment="DEMO")
    assert client.get("/masking-jobs").json()["_pageInfo"]["total"] == 6


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "X", "environment": "DEMO", "colour": "red"},
        {"name": "X", "environment": "DEMO", "id": 1},
        {"name": "MASK_HR", "environment": "DEMO", "id": 1},
        {"name": "X", "environment": "DEMO", "seconds": -1},
        {"name": "X", "environment": "DEMO", "outcome": "explode"},
        {"name": "X", "environment": "DEMO", "outcome": []},
        {"name": "X", "environment": "FRESH", "max_memory": 10**6},
        {"name": "X", "environment": "FRESH", "id": 1},
        {"name": "X", "environment": "DEMO", "remove": "yes"},
    ],
)
def test_a_job_that_cannot_be_changes_nothing(
    stranger: requests.Session, client: requests.Session, fields: object
) -> None:
    before = [client.get(f"/{route}").json() for route in ("masking-jobs", "environments")]
    answer = stranger.post("/_simulator/jobs", json=fields)
    assert answer.status_code == 400
    assert len(answer.json()["errorMessage"].splitlines()) == 1
    assert [client.get(f"/{route}").json() for route in ("masking-jobs", "environments")] == before


def test_python_gets_an_exception_for_a_job_that_cannot_be(simulator: Simulator) -> None:
    with pytest.raises(CatalogueError, match="outcome"):
        simulator.put_job(name="X", outcome="explode")


def test_the_requests_seen_can_be_counted(simulator: Simulator, client: requests.Session) -> None:
    client.get("/executions?page_number=1&page_size=100")
    client.post("/executions", json={"jobId": 1})
    assert simulator.requests == [
        "POST /masking/api/login",
        "GET /masking/api/executions?page_number=1&page_size=100",
        "POST /masking/api/executions",
    ]
