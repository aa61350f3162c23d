"""The routes of the masking API, their paging and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from orchestrator.simulator import Simulator

Start = Callable[[int], Any]

LISTS = (
    "applications",
    "environments",
    "masking-jobs",
    "profile-jobs",
    "reidentification-jobs",
    "tokenization-jobs",
    "executions",
    "execution-components",
    "execution-events",
    "database-connectors",
    "file-connectors",
    "database-rulesets",
    "file-rulesets",
    "application-settings",
)


def test_a_login_gives_a_token_that_opens_the_other_routes(stranger: requests.Session) -> None:
    answer = stranger.post("/login", json={"username": "admin", "password": "admin"})
    assert answer.status_code == 200
    token = answer.json()["Authorization"]
    assert stranger.get("/environments", headers={"Authorization": token}).status_code == 200
    assert stranger.get("/environments", headers={"Authorization": f"Bearer {token}"}).status_code == 401


@pytest.mark.parametrize(
    "body",
    [{"username": "admin", "password": "wrong"}, {"username": "admin"}, {"username": 1, "password": None}, {}],
)
def test_a_wrong_login_is_refused(stranger: requests.Session, body: object) -> None:
    answer = stranger.post("/login", json=body)
    assert answer.status_code == 401
    assert answer.json()["errorMessage"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_a_login_that_is_no_json_object_is_a_bad_request(stranger: requests.Session, body: bytes) -> None:
    answer = stranger.post("/login", data=body)
    assert answer.status_code == 400
    assert answer.json()["errorMessage"]


@pytest.mark.parametrize("route", [*LISTS, "system-information", "executions/1", "masking-jobs/1"])
def test_a_route_without_a_token_answers_401(stranger: requests.Session, route: str) -> None:
    answer = stranger.get(f"/{route}")
    assert answer.status_code == 401
    assert answer.json()["errorMessage"]


def test_a_token_ends_when_it_was_not_used_for_its_life(
    client: requests.Session, pass_time: Callable[[float], None]
) -> None:
    for _ in range(3):
        pass_time(599)
        assert client.get("/environments").status_code == 200
    pass_time(600)
    assert client.get("/environments").status_code == 401
    assert client.get("/environments").status_code == 401


@pytest.mark.parametrize("version", ["", "/v5.1.47", "/v5.1.41", "/v6.0.10"])
@pytest.mark.parametrize("end", ["", "/"])
def test_every_version_and_a_trailing_slash_are_served(
    simulator: Simulator, client: requests.Session, version: str, end: str
) -> None:
    url = simulator.url + version
    assert client.get(f"{url}/masking-jobs/1{end}").json()["jobName"] == "MASK_CRM"
    assert client.get(f"{url}/masking-jobs{end}?environment_id=1").json()["_pageInfo"]["total"] == 7
    login = client.post(f"{url}/login{end}", json={"username": "admin", "password": "admin"})
    assert login.status_code == 200
    assert client.get(f"{url}/_simulator/faults{end}").json() == {}


@pytest.mark.parametrize("route", LISTS)
def test_every_list_is_paged(client: requests.Session, start: Start, route: str) -> None:
    start(7)
    whole = client.get(f"/{route}").json()
    total = len(whole["responseList"])
    assert whole["_pageInfo"] == {"numberOnPage": total, "total": total}
    first = client.get(f"/{route}", params={"page_number": 1, "page_size": 1}).json()
    assert first["responseList"] == whole["responseList"][:1]
    assert first["_pageInfo"] == {"numberOnPage": min(total, 1), "total": total}
    beyond = client.get(f"/{route}", params={"page_number": total + 1, "page_size": 1}).json()
    assert beyond == {"_pageInfo": {"numberOnPage": 0, "total": total}, "responseList": []}


def test_a_page_has_a_hundred_rows_unless_it_is_told_otherwise(client: requests.Session, simulator: Simulator) -> None:
    for number in range(150):
        simulator.put_job(name=f"JOB{number}", environment="MANY")
    environment = client.get("/environments").json()["responseList"][1]
    query = {"environment_id": environment["environmentId"]}
    first, second = (client.get("/masking-jobs", params=query | {"page_number": page}).json() for page in (1, 2))
    assert first["_pageInfo"] == {"numberOnPage": 100, "total": 150}
    assert second["_pageInfo"] == {"numberOnPage": 50, "total": 150}
    names = [job["jobName"] for job in first["responseList"] + second["responseList"]]
    assert names == [f"JOB{number}" for number in range(150)]
    whole = client.get("/masking-jobs", params=query | {"page_size": 1000}).json()
    assert whole["_pageInfo"] == {"numberOnPage": 150, "total": 150}


@pytest.mark.parametrize(
    "query",
    ["page_number=0", "page_number=x", "page_size=0", "page_size=1001", "page_size=" + "9" * 5000, "a&" * 200],
)
def test_a_page_that_cannot_be_is_a_bad_request(client: requests.Session, query: str) -> None:
    answer = client.get(f"/executions?{query}")
    assert answer.status_code == 400
    assert answer.json()["errorMessage"]


def test_a_masking_job_bears_all_its_fields(client: requests.Session) -> None:
    job = client.get("/masking-jobs").json()["responseList"][0]
    fields = (
        "maskingJobId jobName environmentId rulesetId rulesetType createdBy createdTime email feedbackSize "
        "jobDescription maxMemory minMemory multiTenant numInputStreams onTheFlyMasking "
        "onTheFlyMaskingSource failImmediately streamRowLimit"
    )
    assert sorted(job) == sorted(fields.split())
    assert job["createdTime"] == "2017-07-04T00:31:00.952+0000"
    assert client.get(f"/masking-jobs/{job['maskingJobId']}").json() == job


def test_the_catalogue_hangs_together(client: requests.Session) -> None:
    def rows(route: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = client.get(route).json()["responseList"]
        return answer

    application = rows("/applications")[0]
    environment = rows(f"/environments?application_id={application['applicationId']}")[0]
    assert environment["environmentName"] == "DEMO"
    assert rows("/environments?application_id=99") == []
    assert client.get(f"/environments/{environment['environmentId']}").json() == environment
    job = rows(f"/masking-jobs?environment_id={environment['environmentId']}")[0]
    assert job["environmentId"] == environment["environmentId"]
    assert rows("/masking-jobs?environment_id=99") == []
    ruleset = rows("/database-rulesets")[0]
    assert ruleset["databaseRulesetId"] == job["rulesetId"]
    connector = rows("/database-connectors?environment_id=1")[0]
    assert connector["databaseConnectorId"] == ruleset["databaseConnectorId"]
    assert connector["environmentId"] == environment["environmentId"]
    assert rows("/file-connectors")[0]["fileConnectorId"] == rows("/file-rulesets")[0]["fileConnectorId"]
    assert rows("/profile-jobs") == rows("/tokenization-jobs") == rows("/reidentification-jobs") == []


def test_the_limits_are_shown_as_settings(client: requests.Session) -> None:
    rows = client.get("/application-settings").json()["responseList"]
    settings = {row["settingName"]: row["settingValue"] for row in rows}
    assert settings == {"NumSimulJobsAllowed": "2", "MaximumMemoryForJobs": "16384"}
    system = client.get("/system-information").json()
    assert (system["totalAvailableCores"], system["totalAllocatedMemoryForJobs"]) == (2, 16384)
    assert system["version"]


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/executions/99", "/masking-jobs/99", "/environments/99", "/executions/one", "", "/executions//1"],
)
def test_what_is_not_there_answers_404(client: requests.Session, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["errorMessage"]


def test_a_path_outside_the_base_answers_404(simulator: Simulator, client: requests.Session) -> None:
    for path in ("", "/", "/masking", "/masking/apis/executions", "/masking/api/vx/executions"):
        assert client.get(f"http://127.0.0.1:{simulator.port}{path}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/executions", "GET, POST"),
        ("DELETE", "/executions/1", "GET"),
        ("GET", "/executions/1/cancel", "POST"),
        ("GET", "/login", "POST"),
        ("POST", "/masking-jobs", "GET"),
        ("GET", "/_simulator/reset", "POST"),
        ("HEAD", "/login", "POST"),
    ],
)
def test_a_wrong_method_answers_405(client: requests.Session, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed
    if method != "HEAD":
        assert answer.json()["errorMessage"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"{}",
        b'{"jobId": "1"}',
        b'{"jobId": true}',
        b'{"jobId": 1.5}',
        b'{"jobId": -1}',
        b'{"jobId": 1e999}',
        b'{"jobId": 1, "targetConnectorId": "x"}',
        b'{"jobId": 1, "connectorType": "TAPE"}',
        b'{"jobId": 1, "connectorType": {}}',
    ],
)
def test_a_start_with_a_bad_body_starts_nothing(simulator: Simulator, client: requests.Session, body: bytes) -> None:
    answer = client.post("/executions", data=body)
    assert answer.status_code == 400
    assert answer.json()["errorMessage"]
    assert simulator.executions() == []


def test_a_start_of_an_unknown_job_answers_404(simulator: Simulator, client: requests.Session) -> None:
    answer = client.post("/executions", json={"jobId": 99})
    assert answer.status_code == 404
    assert "99" in answer.json()["errorMessage"]
    assert simulator.executions() == []


def test_a_multi_tenant_job_needs_a_target(simulator: Simulator, client: requests.Session) -> None:
    job_id = simulator.put_job(name="TENANTS", environment="DEMO", multi_tenant=True)["maskingJobId"]
    assert client.post("/executions", json={"jobId": job_id}).status_code == 400
    body = {"jobId": job_id, "targetConnectorId": 3, "connectorType": "DATABASE"}
    execution = client.post("/executions", json=body).json()
    assert (execution["targetConnectorId"], execution["connectorType"]) == (3, "DATABASE")


def test_an_on_the_fly_multi_tenant_job_needs_a_source_too(simulator: Simulator, client: requests.Session) -> None:
    job = simulator.put_job(name="FLY", environment="DEMO", multi_tenant=True, on_the_fly=True)
    body = {"jobId": job["maskingJobId"], "targetConnectorId": 3}
    assert client.post("/executions", json=body).status_code == 400
    execution = client.post("/executions", json=body | {"sourceConnectorId": 4}).json()
    assert execution["sourceConnectorId"] == 4
    assert job["onTheFlyMaskingSource"]


def test_executions_are_listed_by_job_and_status_newest_last(
    client: requests.Session, start: Start, pass_time: Callable[[float], None]
) -> None:
    ended = [start(1)["executionId"], start(2)["executionId"]]
    pass_time(10)
    running = [start(1)["executionId"], start(2)["executionId"]]
    queued = [start(1)["executionId"]]

    def listed(**query: str | int) -> list[int]:
        rows = client.get("/executions", params=query).json()["responseList"]
        return [row["executionId"] for row in rows]

    assert listed() == ended + running + queued
    assert listed(job_id=1) == [ended[0], running[0], queued[0]]
    assert listed(execution_status="RUNNING") == running
    assert listed(job_id=2, execution_status="SUCCEEDED") == [ended[1]]
    assert listed(execution_status="WAITING") == listed(job_id=99) == []
    assert listed(job_id="", execution_status="") == listed()
