"""Each fault: what it does, how often, and what it leaves alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from orchestrator.simulator import Simulator
from orchestrator.simulator.faults import FaultError, fault_from_text

Start = Callable[[int], Any]
BODY = {"jobId": 1}


def test_a_lost_answer_leaves_an_execution_behind(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(lost_answer=1)
    client.get("/executions")
    assert client.post("/executions", json={"jobId": 99}).status_code == 404
    with pytest.raises(requests.ConnectionError):
        client.post("/executions", json=BODY)
    assert len(simulator.executions()) == 1
    assert client.post("/executions", json=BODY).status_code == 200


def test_a_lost_request_leaves_nothing_behind(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(lost_request=2)
    client.get("/executions")
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            client.post("/executions", json=BODY)
    assert simulator.executions() == []
    assert client.post("/executions", json=BODY).status_code == 200


def test_a_refused_start_answers_409(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(refuse_start=1)
    assert client.get("/executions").status_code == 200
    answer = client.post("/executions", json=BODY)
    assert answer.status_code == 409
    assert answer.json()["errorMessage"]
    assert simulator.executions() == []
    assert client.post("/executions", json=BODY).status_code == 200


@pytest.mark.parametrize("code", [500, 503])
def test_a_failing_engine_fails_as_often_as_it_was_told(
    simulator: Simulator, client: requests.Session, stranger: requests.Session, code: int
) -> None:
    simulator.fault(**{f"status_{code}": 2})
    assert stranger.get("/executions").status_code == 401  # no good token: does not count
    assert stranger.post("/login", json={"username": "admin", "password": "admin"}).status_code == 200
    assert stranger.get("/_simulator/executions").json() == []
    assert client.post("/executions", json=BODY).status_code == code
    assert client.get("/environments").status_code == code
    assert simulator.executions() == []
    assert client.get("/environments").status_code == 200


def test_the_counts_of_several_faults_add_up(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(status_500=1, status_503=1, wrong_types=1, huge=1, garbage=1)
    for _ in range(5):
        client.get("/environments")
    assert simulator.faults() == {}


def test_a_401_out_of_the_blue_ends_all_tokens(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(status_401=1)
    assert client.get("/environments").status_code == 401
    assert simulator.faults() == {}
    assert client.get("/environments").status_code == 401
    login = client.post("/login", json={"username": "admin", "password": "admin"}).json()
    assert client.get("/environments", headers=login).status_code == 200


def test_a_hanging_request_is_not_answered_and_does_nothing(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(hang=1)
    with pytest.raises(requests.ReadTimeout):
        client.post("/executions", json=BODY, timeout=0.2)
    assert client.get("/environments").status_code == 200
    assert simulator.executions() == []


def test_hanging_requests_are_let_go_when_the_fault_is_switched_off(
    simulator: Simulator, client: requests.Session
) -> None:
    simulator.fault(hang=1)
    ended = threading.Event()

    def ask() -> None:
        with pytest.raises(requests.ConnectionError):
            client.get("/environments")
        ended.set()

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: simulator.faults() == {})
    assert not ended.is_set()
    simulator.fault(hang=0)
    thread.join(5)
    assert ended.is_set()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_garbage_is_a_good_answer_that_is_no_json(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(garbage=1)
    answer = client.get("/environments")
    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()
    assert client.get("/environments").json()


def test_garbage_waits_for_a_good_answer(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(garbage=1)
    assert client.get("/executions/99").json()["errorMessage"]
    assert simulator.faults() == {"garbage": 1}


def test_a_truncated_answer_ends_in_the_middle(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(truncated=1)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        client.get("/environments")
    assert client.get("/environments").json()


def test_wrong_types_keep_the_keys_and_nothing_else(
    simulator: Simulator, client: requests.Session, start: Start
) -> None:
    right = start(1)
    simulator.fault(wrong_types=2)
    wrong = client.get("/executions/1").json()
    assert set(wrong) == set(right)
    assert not any(type(wrong[key]) is type(right[key]) for key in right)
    assert not isinstance(client.get("/executions").json()["responseList"], list)
    assert client.get("/executions/1").json() == right


def test_a_huge_answer_is_tens_of_megabytes_long(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(huge=1)
    with client.get("/environments", stream=True) as answer:
        assert int(answer.headers["Content-Length"]) > 30_000_000
        assert sum(map(len, answer.iter_content(1_000_000))) == int(answer.headers["Content-Length"])
    assert client.get("/environments").json()


def test_a_client_may_hang_up_in_the_middle_of_a_huge_answer(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(huge=1)
    with client.get("/environments", stream=True) as answer:
        next(answer.iter_content(1000))
    assert client.get("/environments").json()


def test_a_slow_engine_is_slow_for_every_request(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(slow=0.1)
    began = time.monotonic()
    assert client.get("/environments").status_code == 200
    assert time.monotonic() - began >= 0.1
    simulator.fault(slow=60)
    simulator.fault(slow=0)
    assert client.get("/environments").status_code == 200


def test_a_refused_login_lets_tokens_live(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(refuse_login=True)
    for _ in range(2):
        answer = client.post("/login", json={"username": "admin", "password": "admin"})
        assert answer.status_code == 401
    assert client.get("/environments").status_code == 200
    simulator.fault(refuse_login=0)
    assert client.post("/login", json={"username": "admin", "password": "admin"}).status_code == 200


@pytest.mark.parametrize("path", ["/environments", "/login", "/nothing"])
def test_a_redirect_hits_every_request_but_those_of_control(
    simulator: Simulator, stranger: requests.Session, path: str
) -> None:
    simulator.fault(redirect="https://elsewhere.example.com/masking/api")
    answer = stranger.get(path, allow_redirects=False)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "https://elsewhere.example.com/masking/api"
    assert stranger.post("/_simulator/faults", json={"redirect": 0}).json() == {}
    assert stranger.get(path, allow_redirects=False).status_code != 302


def test_a_vanished_execution_is_shown_to_no_client(
    simulator: Simulator, client: requests.Session, start: Start
) -> None:
    for job in (7, 1, 2):
        start(job)
    simulator.fault(vanish=1)
    assert client.get("/executions/1").status_code == 404
    assert client.post("/executions/1/cancel").status_code == 404
    assert client.get("/execution-events?execution_id=1").status_code == 404
    assert client.get("/execution-components?execution_id=1").status_code == 404
    for route in ("executions", "execution-components"):
        page = client.get(f"/{route}").json()
        assert [row["executionId"] for row in page["responseList"]] == [2, 3]
        assert page["_pageInfo"] == {"numberOnPage": 2, "total": 2}
    assert [each["executionId"] for each in simulator.executions()] == [1, 2, 3]
    simulator.fault(vanish=[1, 2])
    assert [row["executionId"] for row in client.get("/executions").json()["responseList"]] == [3]
    simulator.fault(vanish=0)
    assert client.get("/executions").json()["_pageInfo"]["total"] == 3


def test_the_events_of_a_vanished_execution_vanish_too(
    simulator: Simulator, client: requests.Session, start: Start, pass_time: Callable[[float], None]
) -> None:
    start(7)
    pass_time(10)
    assert client.get("/execution-events").json()["_pageInfo"]["total"] == 1
    simulator.fault(vanish=1)
    assert client.get("/execution-events").json()["_pageInfo"]["total"] == 0


def test_a_clock_that_is_off_shows_in_all_times(simulator: Simulator, client: requests.Session, start: Start) -> None:
    simulator.fault(clock=-3600)
    execution = start(1)
    assert execution["submitTime"] == "2023-11-14T21:13:20.000+0000"
    assert simulator.executions()[0]["startTime"] == "2023-11-14T21:13:20.000+0000"
    simulator.fault(clock=0.25)
    assert client.get("/executions/1").json()["startTime"] == "2023-11-14T22:13:20.250+0000"


BAD = (
    ("earthquake", 1),
    ("hang", -1),
    ("hang", 1.5),
    ("hang", "1"),
    ("hang", True),
    ("hang", None),
    ("slow", -1),
    ("slow", 1e6),
    ("slow", "fast"),
    ("clock", float("inf")),
    ("clock", 1e12),
    ("redirect", 5),
    ("redirect", "http://x/\r\nSet-Cookie: a"),
    ("vanish", [1, "2"]),
)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_fault_that_cannot_be_changes_none(simulator: Simulator, name: str, value: object) -> None:
    with pytest.raises(FaultError, match=f"^{name}: [^\n]*$"):
        simulator.fault(garbage=1, **{name: value})
    assert simulator.faults() == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hang", ("hang", 1)),
        ("hang=3", ("hang", 3)),
        ("slow=0.5", ("slow", 0.5)),
        ("clock=-60", ("clock", -60)),
        ("vanish=7", ("vanish", 7)),
        ("refuse_login", ("refuse_login", 1)),
        ("redirect=http://a.example.com/?x=1", ("redirect", "http://a.example.com/?x=1")),
    ],
)
def test_a_fault_is_typed_as_its_name_and_value(text: str, fault: object) -> None:
    assert fault_from_text(text) == fault


@pytest.mark.parametrize(
    "text", ["earthquake", "earthquake=x", "clock", "redirect", "hang=x", "hang=1.5", "", "slow=nan"]
)
def test_a_fault_that_was_mistyped_is_named_in_one_line(text: str) -> None:
    with pytest.raises(FaultError, match=r"^[^\n]+$"):
        fault_from_text(text)
