"""What goes over the wire: connections kept and closed, bytes that are no request, start and stop."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
import requests

from orchestrator.simulator import Simulator, wire

LOGIN = b'{"username": "admin", "password": "admin"}'


def exchange(simulator: Simulator, sent: bytes) -> bytes:
    """All that comes back on a connection of its own, to which nothing but `sent` is sent."""
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=5) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while block := connection.recv(65536):
            received += block
        return received


def post_login(*headers: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    length = b"Content-Length: %d" % len(LOGIN)
    return b"\r\n".join([b"POST /masking/api/login " + version, length, *headers, b"", LOGIN])


def test_a_connection_serves_one_request_after_the_other(simulator: Simulator) -> None:
    answers = exchange(simulator, post_login() * 3)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert b"Connection: close" not in answers


@pytest.mark.parametrize(
    "request_bytes", [post_login(b"Connection: close"), post_login(version=b"HTTP/1.0")], ids=["close", "1.0"]
)
def test_a_connection_is_closed_where_the_client_wants_it(simulator: Simulator, request_bytes: bytes) -> None:
    answers = exchange(simulator, request_bytes + post_login())
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"\r\nConnection: close\r\n" in answers


def test_a_request_may_come_in_pieces(simulator: Simulator) -> None:
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post_login():
            connection.send(bytes([byte]))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_header_names_may_be_written_in_any_case(simulator: Simulator) -> None:
    token = json.loads(exchange(simulator, post_login()).partition(b"\r\n\r\n")[2])["Authorization"]
    asked = f"GET http://proxied/masking/api/environments?page_size=1 HTTP/1.1\r\nAUTHORIZATION:{token}\r\n\r\n"
    assert exchange(simulator, asked.encode()).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_asks_before_it_sends_a_body_is_told_to_go_on(simulator: Simulator) -> None:
    answers = exchange(simulator, post_login(b"Expect: 100-continue"))
    assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / SMTP\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
        (b"POST /masking/api/login HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /masking/api/login HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /masking/api/login HTTP/1.1\r\nContent-Length: 10\r\n\r\n{", 400),
        (b"POST /masking/api/login HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST /masking/api/login HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"POST /masking/api/login HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET /\xff\x00%zz HTTP/1.1\r\n\r\n", 404),
        (b"GET * HTTP/1.1\r\n\r\n", 404),
    ],
)
def test_what_is_no_request_is_answered_and_leaves_the_server_alive(
    simulator: Simulator, capfd: pytest.CaptureFixture[str], sent: bytes, status: int
) -> None:
    head, _, body = exchange(simulator, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["errorMessage"]
    assert b" 200 OK" in exchange(simulator, post_login())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n", b"GET / HTT"])
def test_a_client_that_hangs_up_early_gets_no_answer(simulator: Simulator, sent: bytes) -> None:
    assert exchange(simulator, sent) == b""


def test_a_body_above_a_mebibyte_is_refused_even_while_it_is_sent(client: requests.Session) -> None:
    answer = client.post("/executions", data=b" " * 5_000_000)
    assert answer.status_code == 413
    assert answer.json()["errorMessage"]
    assert client.post("/executions", data=b'{"jobId": 1}'.ljust(wire.MAX_BODY)).status_code == 200


def test_many_clients_are_served_at_once(simulator: Simulator, client: requests.Session) -> None:
    token = str(client.headers["Authorization"])
    counts: list[int] = []

    def ask() -> None:
        with requests.Session() as session:
            session.headers["Authorization"] = token
            for _ in range(10):
                answer = session.post(f"{simulator.url}/executions", json={"jobId": 1}, timeout=10)
                counts.append(answer.json()["executionId"])

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == list(range(1, 201))
    rows = client.get("/executions", params={"execution_status": "RUNNING"}).json()
    assert rows["_pageInfo"]["total"] == 2


def test_it_stops_at_once_even_while_a_request_hangs(simulator: Simulator, client: requests.Session) -> None:
    simulator.fault(hang=1)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            client.get("/environments")
        except requests.ConnectionError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 5
    while simulator.faults() and time.monotonic() < deadline:
        time.sleep(0.005)
    began = time.monotonic()
    simulator.stop()
    assert time.monotonic() - began < 0.2
    thread.join(5)
    assert len(failures) == 1
    simulator.stop()


def test_it_starts_again_on_the_same_port_with_what_was_there(
    simulator: Simulator, client: requests.Session, start: Callable[[int], object]
) -> None:
    start(1)
    url = simulator.url
    simulator.stop()
    with pytest.raises(requests.ConnectionError):
        client.get("/executions")
    simulator.start()
    assert simulator.url == url
    assert client.get("/executions/1").json()["status"] == "RUNNING"


def test_no_thread_is_left_when_it_has_stopped() -> None:
    before = set(threading.enumerate())
    with Simulator() as simulator, requests.Session() as session:
        session.get(f"{simulator.url}/environments", timeout=10)
        started = set(threading.enumerate()) - before
        assert len(started) == 2
    assert not started & set(threading.enumerate())


def test_it_listens_on_the_loopback_address_only(simulator: Simulator) -> None:
    assert simulator.url == f"http://127.0.0.1:{simulator.port}/masking/api"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", simulator.port), timeout=5).close()


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys, orchestrator.simulator, orchestrator.simulator.command; late = set(sys.modules);"
        "from orchestrator.simulator import Simulator;"
        "assert not {'requests', 'peewee', 'http.server'} & set(sys.modules);"
        "assert 'orchestrator.simulator.server' not in late"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


def test_an_answer_bears_the_date_of_the_engines_clock(simulator: Simulator) -> None:
    simulator.fault(clock=60)

    assert b"\r\nDate: Tue, 14 Nov 2023 22:14:20 GMT\r\n" in exchange(simulator, post_login())
