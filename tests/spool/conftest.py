"""One open database and one spool for each test, and a way to kill the process between any two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.spool.claim import ignore_lease_breaks
from orchestrator.store.database import close_database, open_database
from tests.spool.place import Killer, Place


@pytest.fixture(scope="session", autouse=True)
def _lease_breaks() -> Iterator[None]:
    before = signal.getsignal(signal.SIGIO)
    ignore_lease_breaks()
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """Open a fresh database; its URL."""
    url = f"sqlite:///{tmp_path}/orchestrator.db"
    open_database(url, busy_timeout=0.2)
    yield url
    close_database()


@pytest.fixture
def place(tmp_path: Path, database: str) -> Place:
    """Give a spool that nobody watches."""
    return Place(tmp_path)


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    """Give a way to kill the process at a step."""
    return Killer(monkeypatch)
