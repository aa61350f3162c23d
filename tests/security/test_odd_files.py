"""Whatever bears the name of a light or a cancel file, and what is replaced while it is looked at.

Job files of every kind: tests/spool/test_refusals.py, names: tests/spool/test_bad_names.py, lights that are a link, a
FIFO or a directory: tests/spool/test_lights.py.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.state import JobStatus
from tests.security.users import as_root
from tests.spool.place import Place

HUGE = 10 * 2**30


def _socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(before)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o020666, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("no device can be made here")


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, HUGE)


def _unreadable(path: Path) -> None:
    path.touch()
    path.chmod(0)


def _linked(path: Path) -> None:
    (path.parents[1] / "precious").write_text("precious\n")
    os.link(path.parents[1] / "precious", path)


KINDS: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a device": _device,
    "a symbolic link": lambda path: path.symlink_to("/etc/passwd"),
    "a dangling link": lambda path: path.symlink_to("/nowhere"),
    "10 GB of nothing": _sparse,
    "mode 000": _unreadable,
    "a hard link": _linked,
}


@as_root
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_stands_in_the_place_of_a_light_is_replaced_and_never_written_or_read(place: Place, kind: str) -> None:
    passwd = Path("/etc/passwd").read_bytes()
    KINDS[kind](place.light("CRM"))
    place.drop("CRM", "job=A\n", light=False)
    place.take()
    place.end("CRM", JobStatus.FAILED)
    assert place.release.release_all()

    assert place.light("CRM").is_file()
    assert not place.light("CRM").is_symlink()
    assert place.light("CRM").read_text().startswith("FAILED id=1 ")
    assert Path("/etc/passwd").read_bytes() == passwd
    precious = place.folder / "precious"
    assert not precious.exists() or precious.read_text() == "precious\n"


@as_root
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_put_in_the_place_of_a_light_later_is_left_alone_and_holds_nobody_up(
    place: Place, kind: str
) -> None:
    for name in ("CRM", "HR"):
        place.drop(name, "job=A\n")
    place.take()
    place.light("CRM").unlink()
    KINDS[kind](place.light("CRM"))
    before = place.light("CRM").lstat()
    for name in ("CRM", "HR"):
        place.end(name, JobStatus.FAILED)
    assert place.release.release_all()

    assert os.path.samestat(place.light("CRM").lstat(), before)
    assert place.light("HR").read_text().startswith("FAILED ")


@as_root
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_kind_a_cancel_file_is_it_is_removed_unread(place: Place, kind: str) -> None:
    place.drop("CRM")
    place.take()
    KINDS[kind](place.path / "CRM.cancel")
    place.take()

    assert not os.path.lexists(place.path / "CRM.cancel")
    assert place.statuses() == {"CRM": "QUEUED" if kind == "a hard link" else "CANCELLED"}
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize("name", [b"n" * 248, b"caf\xe9", b"a\nb", b"\x1b[2J"])
def test_a_cancel_file_of_any_name_goes_and_the_log_shows_no_byte_of_it(
    place: Place, name: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = os.fsencode(place.path) + b"/" + name + b".cancel"
    os.close(os.open(file, os.O_CREAT | os.O_WRONLY))
    place.take()

    assert not os.path.lexists(file)
    assert all(line.isascii() and line.isprintable() for line in caplog.messages)


def test_a_light_of_any_name_without_a_job_stays(place: Place) -> None:
    lights = [b"n" * 242, b"caf\xe9", b"a\nb", b"\x1b[2J"]
    for name in lights:
        os.close(os.open(os.fsencode(place.path) + b"/" + name + b".trafficlight", os.O_CREAT | os.O_WRONLY))
    place.take()
    place.release.release_all()

    assert len(place.listing()) == len(lights)
    assert place.rows() == []


def test_a_job_file_of_10_gb_that_are_not_there_is_refused_at_once(place: Place) -> None:
    _sparse(place.path / "CRM.job")
    place.take()

    assert place.why_rejected("CRM") == "the file is over 64 KiB\n"
    assert place.rejected("CRM").stat().st_size == HUGE


@pytest.mark.parametrize("step", ["open", "rename"])
def test_a_job_file_that_goes_while_it_is_looked_at_was_never_there(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(os, step)

    def vanish(path: str, *rest: object, **options: object) -> object:
        if path == "CRM.job":
            (place.path / "CRM.job").unlink(missing_ok=True)
        return real(path, *rest, **options)

    place.drop("CRM")
    place.drop("HR")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, vanish)
        assert place.take() == 1

    assert place.statuses() == {"HR": "QUEUED"}
    assert place.private() == []


@pytest.mark.parametrize("kind", ["a FIFO", "a symbolic link", "a directory"])
def test_a_job_file_that_is_replaced_between_look_and_claim_is_refused_for_what_it_became(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    real = os.rename

    def rename(source: str, target: str, **options: int) -> None:
        if source == "CRM.job":
            (place.path / "CRM.job").unlink()
            (KINDS | {"a directory": os.mkdir})[kind](place.path / "CRM.job")
        real(source, target, **options)

    place.drop("CRM", "job=A\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        place.take()

    assert place.row("CRM").status == "REJECTED"
    assert place.row("CRM").job is None
