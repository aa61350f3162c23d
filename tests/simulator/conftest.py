"""A simulated engine whose clock only moves when a test moves it, and a client that has logged in to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from orchestrator.simulator import Simulator

NOON = 1_700_000_000.0


class Hands:
    """The hands of a clock."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class Client(requests.Session):
    """A session whose URLs are paths below an engine's base; it has logged in unless told otherwise."""

    def __init__(self, url: str, *, login: bool = True) -> None:
        super().__init__()
        self.trust_env = False
        self.url = url
        if login:
            answer = self.post("/login", json={"username": "admin", "password": "admin"})
            self.headers["Authorization"] = answer.json()["Authorization"]

    def request(self, method: Any, url: Any, *rest: Any, **options: Any) -> requests.Response:
        options.setdefault("timeout", 10)
        return super().request(method, url if "://" in url else self.url + url, *rest, **options)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def pass_time(hands: Hands) -> Callable[[float], None]:
    return hands.move


@pytest.fixture
def simulator(hands: Hands) -> Iterator[Simulator]:
    with Simulator(seconds=10, cpus=2, token_life=600, clock=hands) as started:
        yield started


@pytest.fixture
def client(simulator: Simulator) -> Iterator[requests.Session]:
    with Client(simulator.url) as session:
        yield session


@pytest.fixture
def stranger(simulator: Simulator) -> Iterator[requests.Session]:
    with Client(simulator.url, login=False) as session:
        yield session


@pytest.fixture
def log_in() -> Iterator[Callable[[Simulator], requests.Session]]:
    with ExitStack() as stack:
        yield lambda simulator: stack.enter_context(Client(simulator.url))


@pytest.fixture
def start(client: requests.Session) -> Callable[[int], Any]:
    def started(job_id: int) -> Any:
        answer = client.post("/executions", json={"jobId": job_id})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return started


@pytest.fixture
def status(client: requests.Session) -> Callable[[int], str]:
    def shown(execution_id: int) -> str:
        return str(client.get(f"/executions/{execution_id}").json()["status"])

    return shown
