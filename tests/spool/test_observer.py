"""The observer tells of each file that has become whole, at once, and asks for a look where it cannot tell."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, Mask, WatchDescriptor
from watchdog.observers.polling import PollingObserver

from orchestrator.spool import filesystem, observe
from orchestrator.spool.filesystem import file_system_of, is_shared
from orchestrator.spool.observe import SpoolEvents, SpoolObserver, make_observer, must_poll
from tests.spool.place import bash, output_of, until


class Told:
    """What an observer told."""

    def __init__(self, path: Path, setting: str) -> None:
        self.path = path
        self.arrived: list[str] = []
        self.looks = 0
        self.observer = make_observer(SpoolEvents(path, self.arrived.append, self.look, self.look), setting)
        self.observer.start()

    def look(self) -> None:
        self.looks += 1


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """Watch a spool by inotify."""
    path = tmp_path / "spool"
    path.mkdir()
    found = Told(path, "inotify")
    yield found
    found.observer.stop()
    found.observer.join()


@pytest.mark.parametrize("script", [
    "echo job=A > A.job",
    "touch A.job",
    ": > .A.tmp; mv .A.tmp A.job",
    "touch ../A.tmp; mv ../A.tmp A.job",
    "ln -s /nowhere ../A.tmp; mv ../A.tmp A.job",
    "echo job=A > A.job; cp A.job A.job",
])  # fmt: skip
def test_a_file_is_told_of_however_a_shell_brings_it(told: Told, script: str) -> None:
    output_of(bash(script, told.path))

    until(lambda: "A.job" in told.arrived, "the event")
    assert set(told.arrived) == {"A.job"}
    assert told.looks == 0


def test_a_cancel_file_is_told_of_and_nothing_else_is(told: Told) -> None:
    output_of(bash("touch .A.job A.trafficlight A.txt .B.cancel job; mkdir rejected; touch Z.cancel", told.path))

    until(lambda: told.arrived, "the event")
    assert told.arrived == ["Z.cancel"]


def test_a_file_is_told_of_when_it_is_closed_and_not_before(told: Told) -> None:
    with open(told.path / "A.job", "w") as half:
        half.write("job=")
        half.flush()
        (told.path / "B.job").touch()
        until(lambda: "B.job" in told.arrived, "the other file's event")
        assert told.arrived == ["B.job"]
    until(lambda: "A.job" in told.arrived, "the event")


def test_a_file_that_is_moved_away_holds_nothing_back(told: Told, tmp_path: Path) -> None:
    """An unmatched IN_MOVED_FROM would hold every later event back for half a second."""
    delays = []
    for number in range(20):
        file = told.path / f"J{number}.job"
        began = time.monotonic()
        file.touch()
        until(lambda name=file.name: name in told.arrived, "the event")  # type: ignore[misc]
        delays.append(time.monotonic() - began)
        file.rename(tmp_path / file.name)

    assert sorted(delays)[10] < 0.2
    assert sum(delays) < 20 * 0.4


def test_an_overflow_asks_for_a_look(told: Told) -> None:
    assert isinstance(told.observer, SpoolObserver)
    told.observer.handle_event(InotifyEvent(WatchDescriptor(-1), Mask(InotifyConstants.IN_Q_OVERFLOW), 0, b""))

    until(lambda: told.looks, "the look")
    assert told.arrived == []


def test_a_directory_that_goes_asks_for_a_look(told: Told) -> None:
    told.path.rmdir()

    until(lambda: told.looks, "the look")


def test_polling_finds_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "POLL_INTERVAL", 0.05)
    polled = Told(tmp_path, "polling")
    assert isinstance(polled.observer, PollingObserver)
    try:
        (tmp_path / "A.job").touch()
        until(lambda: "A.job" in polled.arrived, "the poll")
    finally:
        polled.observer.stop()
        polled.observer.join()


def mounts(folder: Path, *lines: tuple[str, Path | str, str]) -> Path:
    """Make a mountinfo (proc(5)) of device, mount point and type."""
    file = folder / "mountinfo"
    file.write_text(
        "".join(
            f"{21 + number} 1 {device} / {point} rw,relatime shared:{number} master:2 - {kind} server:/x rw\n"
            for number, (device, point, kind) in enumerate(lines)
        )
    )
    return file


def device_of(path: Path) -> str:
    device = os.stat(path).st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def test_the_innermost_mount_tells_the_file_system(tmp_path: Path) -> None:
    here = device_of(tmp_path)
    spool = tmp_path / "spool"
    spool.mkdir()
    (tmp_path / "spool2").mkdir()
    table = mounts(
        tmp_path, ("0:1", "/", "ext4"), (here, tmp_path, "xfs"), (here, spool, "nfs4"), ("0:9", "/proc", "proc")
    )

    assert file_system_of(spool, table) == "nfs4"
    assert file_system_of(tmp_path / "spool2", table) == "xfs"  # whose name only begins like the mount
    assert file_system_of(Path("/"), mounts(tmp_path, (device_of(Path("/")), "/", "overlay"))) == "overlay"


def test_what_is_mounted_over_a_mount_hides_it(tmp_path: Path) -> None:
    here = device_of(tmp_path)

    assert file_system_of(tmp_path, mounts(tmp_path, (here, tmp_path, "autofs"), (here, tmp_path, "nfs"))) == "nfs"


def test_a_link_is_followed_to_the_real_mount(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    table = mounts(tmp_path, ("0:1", "/", "ext4"), (device_of(tmp_path), tmp_path / "real", "cifs"))

    assert file_system_of(tmp_path / "link", table) == "cifs"


def test_a_mount_with_a_blank_in_its_name_is_found(tmp_path: Path) -> None:
    path = tmp_path / "two words"
    path.mkdir()
    table = mounts(tmp_path, ("0:1", "/", "ext4"), (device_of(path), str(path).replace(" ", "\\040"), "nfs"))

    assert file_system_of(path, table) == "nfs"


@pytest.mark.parametrize(("kind", "setting", "polled"), [
    ("ext4", "auto", False),
    ("nfs", "auto", True),
    ("nfs4", "auto", True),
    ("cifs", "auto", True),
    ("virtiofs", "auto", True),
    ("nfs4", "inotify", False),
    ("ext4", "polling", True),
])  # fmt: skip
def test_what_inotify_cannot_see_is_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, setting: str, polled: bool
) -> None:
    monkeypatch.setattr(filesystem, "file_system_of", lambda path: kind)

    assert must_poll(tmp_path, setting) is polled
    observer = make_observer(SpoolEvents(tmp_path, print, print, print), setting)
    assert isinstance(observer, PollingObserver if polled else SpoolObserver)
    observer.stop()


def test_a_spool_that_is_not_there_is_not_taken_for_a_shared_one(tmp_path: Path) -> None:
    assert not is_shared(tmp_path / "nowhere")


def test_the_file_system_of_this_very_host_is_known(tmp_path: Path) -> None:
    assert file_system_of(tmp_path) not in ("", "proc", "sysfs")
