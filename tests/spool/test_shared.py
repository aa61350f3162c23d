"""Spools that other hosts write to: the kernel here knows neither their writers nor their callers."""

from __future__ import annotations

import errno
import fcntl
import os
import time

import pytest

from orchestrator.spool import claim as claim_module
from orchestrator.spool import intake as intake_module

from .place import Place


@pytest.fixture(autouse=True)
def shared(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that the spool is on such a file system, where a lease is refused as NFSv4 refuses it."""
    monkeypatch.setattr(intake_module, "is_shared", lambda _: True)

    def refuse(*_: object) -> int:
        raise OSError(errno.EAGAIN, "no delegation")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert fcntl.fcntl is refuse


def test_a_file_is_taken_once_it_has_not_changed_for_a_while(place: Place) -> None:
    file = place.drop("CRM", "job=A\n")
    assert place.take() == 0
    assert place.intake.look_again is not None
    changed = os.stat(file)
    place_time = time.time() + claim_module.SETTLED + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: place_time)
        assert place.take() == 1
    assert changed.st_mtime < place_time


def test_no_local_process_is_taken_for_a_caller_of_another_host(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "SETTLED", 0)
    place.drop("CRM", f"job=A\npid={os.getpid()}\n")
    place.take()
    assert place.row("CRM").caller is None


def test_a_job_that_hangs_on_its_caller_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "SETTLED", 0)
    place.drop("CRM", f"job=A\npid={os.getpid()}\non_caller_exit=cancel\n")
    place.take()
    assert "other hosts write to this spool" in place.why_rejected("CRM")
