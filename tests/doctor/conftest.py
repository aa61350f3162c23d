"""An installation in which all is well, on a disk with room, with the client in the PATH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.doctor import database, disk, events
from orchestrator.store import models
from orchestrator.store.database import close_database
from tests.doctor.patient import Patient
from tests.house import CLIENT, House


@pytest.fixture(autouse=True)
def _place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the host be well too, whatever it is like, and waiting be short."""
    programs = tmp_path_factory.mktemp("bin")
    shutil.copy(CLIENT, programs)
    (programs / CLIENT.name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("ENGINE_PASSWORD", "admin")
    room(monkeypatch, 0.5, 2**40)
    limits = tmp_path_factory.mktemp("inotify")
    for name in ("max_user_instances", "max_user_watches"):
        (limits / name).write_text("100000\n")
    monkeypatch.setattr(events, "_LIMITS", limits)
    monkeypatch.setattr(database, "HELD", 0.2)
    yield
    if models.database.obj is not None:
        close_database()


@pytest.fixture
def patient(house: House, capsys: pytest.CaptureFixture[str]) -> Patient:
    """Give an installation with a command engine that is well."""
    return Patient(house, capsys)


def room(monkeypatch: pytest.MonkeyPatch, share: float, size: int) -> None:
    """Let all disks have so many bytes, and this share of them free."""
    free = int(size * share)

    def statvfs(path: Path) -> SimpleNamespace:
        return SimpleNamespace(
            f_bavail=free, f_bfree=free, f_blocks=size, f_frsize=1, f_favail=free, f_files=size
        )  # fmt: skip

    monkeypatch.setattr(disk, "_statvfs", statvfs)
