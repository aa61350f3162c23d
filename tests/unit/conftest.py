"""A fresh database for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from orchestrator.store.database import close_database, open_database

# Nothing is left in the checkout, and a busy host is no failure.
settings.register_profile("orchestrator", database=None, deadline=None)
settings.load_profile("orchestrator")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """Open a new database; its file."""
    file = tmp_path / "orchestrator.db"
    open_database(f"sqlite:///{file}")
    yield file
    close_database()
