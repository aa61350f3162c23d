"""A simulated masking engine, an engine of kind delphix that talks to it, and a fresh database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.engines.delphix import DelphixEngine
from orchestrator.engines.delphix import client as client_module
from orchestrator.simulator import Simulator
from orchestrator.store.database import close_database, open_database

from .make import SECRET, delphix


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """Open a new database; its file."""
    file = tmp_path / "orchestrator.db"
    open_database(f"sqlite:///{file}")
    yield file
    close_database()


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """Give the password of the simulated engine, which is in the environment, and must never be in a log."""
    monkeypatch.setenv("ENGINE1_PASSWORD", SECRET)
    caplog.set_level(logging.DEBUG)
    yield SECRET
    assert SECRET not in caplog.text


@pytest.fixture
def simulator(secret: str) -> Iterator[Simulator]:
    with Simulator(seconds=0.05, password=secret) as started:
        yield started


@pytest.fixture
def engine(simulator: Simulator) -> Iterator[DelphixEngine]:
    made = delphix(simulator.url)
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for an answer for a short while only."""
    monkeypatch.setattr(client_module, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 0.5)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something is true, 10 s at the most."""

    def wait(is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not is_true():
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.01)

    return wait
