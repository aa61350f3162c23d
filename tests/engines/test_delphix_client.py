"""The conversation with a masking engine: logins, pages, time limits, and every way in which an answer can be wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from orchestrator.engines.delphix import client as client_module
from orchestrator.engines.delphix.client import DelphixClient, NotThere, Refused
from orchestrator.engines.delphix.settings import DelphixSettings
from orchestrator.errors import EngineDown, LoginRefused, StartRefused, StartUnknown
from orchestrator.simulator import Simulator

pytestmark = pytest.mark.usefixtures("impatient")

START = {"jobId": 1}


def settings(url: str, **fields: Any) -> DelphixSettings:
    known: dict[str, Any] = {"url": url, "username": "admin", "password": "env:ENGINE1_PASSWORD"}
    return DelphixSettings(**known | fields)


@pytest.fixture
def client(simulator: Simulator) -> Iterator[DelphixClient]:
    made = DelphixClient(settings(simulator.url))
    yield made
    made.close()


def logins(simulator: Simulator) -> int:
    return sum("/login" in request for request in simulator.requests)


def starts(simulator: Simulator) -> int:
    return sum(request.startswith("POST") and request.endswith("/executions") for request in simulator.requests)


def test_one_login_serves_many_calls(client: DelphixClient, simulator: Simulator) -> None:
    for _ in range(10):
        client.get("/system-information")
        list(client.pages("/environments"))
    assert (logins(simulator), client.logins) == (1, 1)


def test_a_token_that_has_ended_is_renewed_once_and_the_call_repeated(
    client: DelphixClient, simulator: Simulator
) -> None:
    client.get("/system-information")
    simulator.fault(status_401=1)
    assert client.get("/system-information")["version"]
    assert (logins(simulator), client.logins) == (2, 2)


def test_a_new_token_that_is_refused_at_once_is_not_renewed_again(client: DelphixClient, simulator: Simulator) -> None:
    simulator.fault(status_401=9)
    with pytest.raises(LoginRefused, match="refused at once"):
        client.get("/system-information")
    assert logins(simulator) == 2


def test_a_start_whose_token_had_ended_is_sent_again_for_it_was_not_done(
    client: DelphixClient, simulator: Simulator
) -> None:
    client.get("/system-information")
    simulator.fault(status_401=1)
    assert client.post_once("/executions", START)["jobId"] == 1
    assert len(simulator.executions()) == 1


def test_a_start_that_is_refused_for_its_token_twice_does_not_run(client: DelphixClient, simulator: Simulator) -> None:
    simulator.fault(status_401=9)
    with pytest.raises(LoginRefused):
        client.post_once("/executions", START)
    assert simulator.executions() == []


def test_a_refused_login_is_told_with_the_user_and_without_the_password(
    client: DelphixClient, simulator: Simulator, secret: str
) -> None:
    simulator.fault(refuse_login=1)
    with pytest.raises(LoginRefused, match="the login of admin was refused: status 401") as refused:
        client.get("/system-information")
    assert secret not in str(refused.value) + repr(refused.value) + repr(client) + repr(vars(client))


FAULTS = {
    "status_500": EngineDown,
    "status_503": EngineDown,
    "hang": EngineDown,
    "garbage": EngineDown,
    "truncated": EngineDown,
    "huge": EngineDown,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_question_without_a_sensible_answer_says_nothing_but_that_the_engine_is_down(
    client: DelphixClient, simulator: Simulator, fault: str, secret: str
) -> None:
    client.get("/system-information")
    simulator.fault(**{fault: 1})
    with pytest.raises(EngineDown) as down:
        client.get("/system-information")
    assert not isinstance(down.value, LoginRefused)
    told = str(down.value)
    assert told.startswith("GET /system-information: ")
    assert told.isprintable()
    assert len(told) < 300
    assert secret not in told
    assert client.get("/system-information")["version"]


@pytest.mark.parametrize("fault", ["garbage", "wrong_types", "truncated", "huge", "hang", "status_500", "status_503"])
def test_a_start_without_a_sensible_answer_may_run_and_is_sent_once(
    client: DelphixClient, simulator: Simulator, fault: str
) -> None:
    client.get("/system-information")
    simulator.fault(**{fault: 1})
    if fault == "wrong_types":  # JSON all the same: who asked for it judges it
        client.post_once("/executions", START)
    else:
        with pytest.raises(StartUnknown):
            client.post_once("/executions", START)
    assert starts(simulator) == 1


@pytest.mark.parametrize("fault", ["lost_answer", "lost_request"])
def test_a_start_whose_connection_breaks_may_run_and_is_sent_once(
    client: DelphixClient, simulator: Simulator, fault: str
) -> None:
    simulator.fault(**{fault: 1})
    with pytest.raises(StartUnknown):
        client.post_once("/executions", START)
    assert starts(simulator) == 1
    assert len(simulator.executions()) == (fault == "lost_answer")


def test_a_refused_start_surely_does_not_run(client: DelphixClient, simulator: Simulator) -> None:
    simulator.fault(refuse_start=1)
    with pytest.raises(StartRefused, match="status 409: The job cannot be started now"):
        client.post_once("/executions", START)
    with pytest.raises(StartRefused, match="status 404: no job has the id 99"):
        client.post_once("/executions", {"jobId": 99})


def test_a_start_that_never_left_surely_does_not_run(client: DelphixClient, simulator: Simulator) -> None:
    client.get("/system-information")
    client.close()
    simulator.stop()
    with pytest.raises(EngineDown) as down:
        client.post_once("/executions", START)
    assert "refused" in str(down.value)
    simulator.start()
    assert simulator.executions() == []


def test_a_start_that_cannot_leave_soon_is_not_sent_at_all(
    client: DelphixClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for it later must know when it can have left at the latest."""
    client.get("/system-information")
    simulator.fault(status_401=1)
    monkeypatch.setattr(client_module, "START_LEAVES", 0.0)
    with pytest.raises(EngineDown, match="it took over 0 s to log in"):
        client.post_once("/executions", START)
    assert simulator.executions() == []


def test_an_answer_that_trickles_is_given_up_after_a_while(
    client: DelphixClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get("/system-information")
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 0.0)
    with pytest.raises(EngineDown, match="takes over 0 s"):
        client.get("/system-information")


def test_a_slow_engine_is_waited_for(client: DelphixClient, simulator: Simulator) -> None:
    simulator.fault(slow=0.05)
    assert client.get("/system-information")["version"]


@pytest.mark.parametrize("call", ["pages", "get"])
def test_an_answer_of_the_wrong_shape_is_none(client: DelphixClient, simulator: Simulator, call: str) -> None:
    client.get("/system-information")
    simulator.fault(wrong_types=1)
    with pytest.raises(EngineDown, match="no proper"):
        list(client.pages("/environments"))
    simulator.fault(wrong_types=0)
    if call == "pages":
        assert list(client.pages("/environments"))


def test_what_is_not_there_and_what_is_refused_are_told_apart(client: DelphixClient) -> None:
    with pytest.raises(NotThere, match=r"GET /executions/77: status 404: no execution has the id 77"):
        client.get("/executions/77")
    with pytest.raises(Refused, match="status 400"):
        client.get("/executions", page_number=0)


def test_a_list_is_read_page_by_page_to_its_end(
    client: DelphixClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE_SIZE", 3)
    rows = list(client.pages("/masking-jobs", environment_id=1))
    assert [row["maskingJobId"] for row in rows] == list(range(1, 8))
    asked = [request for request in simulator.requests if "masking-jobs" in request]
    assert [f"page_number={number}&" in request for number, request in enumerate(asked, 1)] == [True] * 3


ONE, TWO, THREE = {"id": 1}, {"id": 2}, {"id": 3}


@pytest.mark.parametrize(
    ("pages", "told"),
    [
        ([([], 3)], "3 rows were announced, and only 0 shown"),
        ([([ONE, TWO], 3), ([], 3)], "3 rows were announced, and only 2 shown"),
        ([([ONE, TWO], 5), ([ONE, TWO], 5)], "the same page twice"),
        ([([ONE, TWO], 4), ([ONE, TWO], 4)], "the same page twice"),
        ([([ONE, TWO], 3), ([TWO, THREE], 3)], "more rows than the 3 announced"),
        ([([{"id": number}], 10**9) for number in range(9)], "over 8 pages"),
    ],
)
def test_a_list_that_is_not_shown_as_it_was_announced_is_none(
    client: DelphixClient, monkeypatch: pytest.MonkeyPatch, pages: list[Any], told: str
) -> None:
    monkeypatch.setattr(client_module, "MAX_PAGES", 8)
    monkeypatch.setattr(client, "page", lambda path, number, size, **more: pages[number - 1])
    with pytest.raises(EngineDown, match=f"GET /executions: .*{told}"):
        list(client.pages("/executions"))


def test_a_list_that_grows_while_it_is_read_is_read_to_its_end(
    client: DelphixClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [([ONE], 2), ([TWO], 3), ([THREE], 3)]
    monkeypatch.setattr(client, "page", lambda path, number, size, **more: pages[number - 1])
    assert list(client.pages("/executions")) == [ONE, TWO, THREE]


class _Answering(BaseHTTPRequestHandler):
    """Answers everything alike, and keeps what it was asked."""

    seen: list[tuple[str, str | None]]
    answer: bytes

    def _respond(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_GET = do_POST = _respond  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    handler = type("Handler", (_Answering,), {"seen": seen, "answer": answer})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def test_credentials_and_token_do_not_follow_a_redirect(client: DelphixClient, simulator: Simulator) -> None:
    client.get("/system-information")
    with answering(b"{}") as (elsewhere, seen):
        simulator.fault(redirect=elsewhere)
        with pytest.raises(EngineDown, match="redirected"):
            client.get("/system-information")
        with pytest.raises(StartUnknown, match="redirected"):
            client.post_once("/executions", START)
        fresh = DelphixClient(settings(simulator.url))
        with pytest.raises(EngineDown, match="redirected"):
            fresh.get("/system-information")
        fresh.close()
        assert seen == []
    assert simulator.executions() == []


@pytest.mark.parametrize(
    "login",
    [b"[]", b"{}", b'{"Authorization": ""}', b'{"Authorization": 7}', b'{"Authorization": "a\\r\\nX: y"}', b"x"],
)
@pytest.mark.usefixtures("secret")
def test_a_login_without_a_proper_token_is_none(login: bytes) -> None:
    with answering(login) as (url, seen):
        client = DelphixClient(settings(url))
        with pytest.raises(EngineDown, match="POST /login"):
            client.get("/system-information")
        client.close()
        assert [path for path, _ in seen] == ["/login"]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"Authorization": "t", "responseList": [1], "_pageInfo": {"total": 1}}',
        b'{"Authorization": "t", "responseList": [{}], "_pageInfo": {"total": 0}}',
        b'{"Authorization": "t", "responseList": [{}], "_pageInfo": {"total": true}}',
        b'{"Authorization": "t", "responseList": [{}], "_pageInfo": []}',
        b'{"Authorization": "t", "responseList": [{}]}',
    ],
)
@pytest.mark.usefixtures("secret")
def test_a_list_whose_parts_disagree_is_none(answer: bytes) -> None:
    with answering(answer) as (url, _):
        client = DelphixClient(settings(url))
        with pytest.raises(EngineDown, match="no proper"):
            list(client.pages("/executions"))
        client.close()


@pytest.mark.usefixtures("secret")
def test_nothing_of_the_environment_gets_between_the_client_and_its_engine(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(b"{}") as (proxy, seen):
        for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy)
        client = DelphixClient(settings(simulator.url))
        assert client.get("/system-information")["version"]
        client.close()
        assert seen == []


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("env:NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE of env:NOT_SET_ANYWHERE is not set"),
        ("file:/nowhere/password", "file:/nowhere/password cannot be read"),
    ],
)
def test_an_engine_without_its_secret_is_down_and_is_not_asked(simulator: Simulator, password: str, told: str) -> None:
    client = DelphixClient(settings(simulator.url, password=password))
    with pytest.raises(LoginRefused, match=told):
        client.get("/system-information")
    with pytest.raises(LoginRefused, match=told):
        client.post_once("/executions", START)
    assert simulator.requests == []
    client.close()


@pytest.mark.parametrize(
    ("date", "skew"), [(None, None), ("yesterday", None), ("Thu, 01 Jan 1970 00:20:00 GMT", 200.0)]
)
def test_the_engines_clock_is_what_its_last_answer_says(
    client: DelphixClient, date: str | None, skew: float | None
) -> None:
    assert client.clock_skew() is None
    client.get("/system-information")
    client._date = date, 1000.0

    assert client.clock_skew() == skew
