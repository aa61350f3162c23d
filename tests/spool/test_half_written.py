"""P7: a job file is read only when nobody has it open for writing."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from typing import TextIO

import pytest

from orchestrator.spool import claim as claim_module
from tests.spool.place import Place, bash, output_of


def test_a_file_open_for_writing_is_not_taken_until_it_is_closed(place: Place) -> None:
    with open(place.path / "CRM.job", "w") as half:
        half.write("job=MASK_")
        half.flush()
        assert place.take() == 0
        assert place.intake.take_files(["CRM.job"], certain=True) == 0
        assert place.rows() == []
        assert (place.path / "CRM.job").exists()
        half.write("CRM\n")
    assert place.take() == 1

    assert place.row("CRM").job == "MASK_CRM"


def test_a_file_is_taken_by_the_event_of_its_closing(place: Place) -> None:
    with open(place.path / "CRM.job", "w") as half:
        half.write("job=MASK_CRM\n")
    assert place.intake.take_files(["CRM.job"], certain=True) == 1
    assert place.row("CRM").job == "MASK_CRM"


def test_a_slow_shell_is_waited_for(place: Place) -> None:
    writer = subprocess.Popen(
        ["bash", "-c", "exec > CRM.job; printf 'job=MASK_'; echo open >&2; read; echo CRM"],
        cwd=place.path, text=True, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stderr is not None
    assert writer.stderr.readline() == "open\n"
    for _ in range(5):
        assert place.take() == 0
    writer.communicate("\n", timeout=10)

    assert place.take() == 1
    assert place.row("CRM").job == "MASK_CRM"


def test_a_reader_does_not_keep_a_file_from_being_taken(place: Place) -> None:
    place.drop("CRM", "job=MASK_CRM\n")
    with open(place.path / "CRM.job"):
        assert place.take() == 1


def test_a_file_that_is_opened_again_while_it_is_claimed_is_read_when_it_is_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `echo a > X.job; echo b >> X.job` does, with the claim between the second open and its rename."""
    writers: list[TextIO] = []
    real = os.rename

    def rename(source: str, target: str, **options: int) -> None:
        if source == "CRM.job" and not writers:
            writers.append((place.path / source).open("a"))
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    place.drop("CRM", "job=MASK_CRM\n")
    place.drop("OTHER")
    place.intake.take_files(["CRM.job", "OTHER.job"], certain=True)
    assert place.statuses() == {"OTHER": "QUEUED"}

    assert (place.path / "CRM.job").exists()
    with writers[0] as writer:
        writer.write("priority=7\n")
    place.take()

    assert [job.priority for job in place.rows("CRM")] == [7]
    assert place.light("CRM").read_text() == ""
    assert place.private() == []


class NoLeases:
    """A file system that gives no leases, or files of another user."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.real = fcntl.fcntl
        patch.setattr(fcntl, "fcntl", self)

    def __call__(self, fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise PermissionError(13, "Permission denied")
        return self.real(fd, command, argument)


def test_where_no_lease_can_tell_a_rescan_waits_until_the_file_has_settled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    NoLeases(monkeypatch)
    place.drop("CRM")
    assert place.take() == 0
    monkeypatch.setattr(claim_module, "SETTLED", 0.05)
    time.sleep(0.1)
    assert place.take() == 1


def test_where_no_lease_can_tell_an_event_is_enough(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    NoLeases(monkeypatch)
    place.drop("CRM")

    assert place.intake.take_files(["CRM.job"], certain=True) == 1


def test_a_file_from_the_future_is_taken_all_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    NoLeases(monkeypatch)
    file = place.drop("CRM")
    os.utime(file, (time.time() + 9999, time.time() + 9999))

    assert place.take() == 1


def test_a_writer_is_not_held_up_by_a_look(place: Place) -> None:
    """A lease that were kept would block the writer's open for 45 s."""
    place.drop("CRM", "x\n" * 1000)
    shells = [bash("for i in 1 2 3 4 5 6 7 8; do echo param.$i=1 > J$0.$i.job; done".replace("$0", str(n)), place.path)
              for n in range(3)]  # fmt: skip
    began = time.monotonic()
    while any(shell.poll() is None for shell in shells):
        place.take()
    for shell in shells:
        assert output_of(shell) == ""
    place.take()

    assert time.monotonic() - began < 8
    assert len([job for job in place.rows() if job.name.startswith("J")]) == 24
    assert {job.params for job in place.rows() if job.name.endswith(".3")} == {'{"3": "1"}'}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the spool lie on a file system of another host, which refuses every lease as NFSv4 may."""
    real = fcntl.fcntl

    def no_delegation(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", no_delegation)
    monkeypatch.setattr("orchestrator.spool.intake.is_shared", lambda path: True)


@pytest.mark.usefixtures("shared")
def test_a_shared_spool_is_served_once_its_files_have_settled(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.drop("CRM")
    assert place.take() == 0
    assert place.intake.take_files(["CRM.job"], certain=False) == 0
    assert place.intake.look_again is not None
    monkeypatch.setattr(claim_module, "SETTLED", 0.05)
    time.sleep(0.1)

    assert place.take() == 1
    assert place.intake.look_again is None


@pytest.mark.usefixtures("shared")
def test_a_shared_spool_proves_no_caller(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pid of another host is some stranger's here."""
    monkeypatch.setattr(claim_module, "SETTLED", 0.0)
    place.drop("A", f"pid={os.getpid()}\n")
    place.drop("B", f"pid={os.getpid()}\non_caller_exit=cancel\n")
    place.take()

    assert (place.row("A").status, place.row("A").caller) == ("QUEUED", None)
    assert place.row("B").status == "REJECTED"
