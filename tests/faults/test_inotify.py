"""What the kernel does not tell of a spool: too much at once, its limits, and a directory that is another one."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.disk import NO_INOTIFY, mount, needs_root, unmount
from tests.faults.points import WHOLE, needs_strace
from tests.house import House, wait_for

FILES = 50_000 if WHOLE else 2_000
DELAY, SLOW = ("100ms", 10) if WHOLE else ("20ms", 2)  # of each call that changes something; jobs
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
COMMANDS = '[engines.local]\nkind = "command"\ncpus = 2\n[commands.true]\nrun = ["/bin/true"]'


def green(house: House, name: str) -> None:
    """Drop a job and see it end well; sooner than the look that comes in any case."""
    house.drop(name, "command=true")
    assert house.verdict(name, 15) is None


@needs_root
def test_more_files_at_once_than_the_kernel_can_tell_of_are_all_taken(house: House) -> None:
    before = QUEUE.read_text()
    try:
        if not WHOLE:
            QUEUE.write_text("64")  # of those that begin to watch now
        program = house.start("watch")
        wait_for(lambda: "inotify" in _fds(program.pid))
        time.sleep(0.2)
    finally:
        QUEUE.write_text(before)
    program.send_signal(signal.SIGSTOP)  # it could keep up otherwise
    began = time.monotonic()
    for number in range(FILES):
        (house.spool / f"J{number}.job").write_bytes(b"command=true\n")
    program.send_signal(signal.SIGCONT)
    wait_for(lambda: house.query("SELECT count(*) FROM QUEUE WHERE status = 'QUEUED'") == [(FILES,)], 300)
    seconds = time.monotonic() - began
    assert WHOLE or seconds < 20  # not by the look that comes every 30 s
    wait_for(lambda: not list(house.spool.glob("*.job")))
    assert house.query("SELECT count(DISTINCT name) FROM QUEUE") == [(FILES,)]
    assert len(list(house.spool.glob("*.trafficlight"))) == FILES
    assert "ERROR" not in house.log.read_text()
    print(f"\n{FILES} files at once: each taken once, in {seconds:.0f} s with the dropping")


def _fds(pid: int) -> str:
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(fd.readlink()))
    return " ".join(found)


@needs_root
@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_a_spool_is_polled_where_inotify_has_reached_its_limits(tmp_path: Path, limit: str) -> None:
    under = tuple(word.replace("max_inotify_instances", limit) for word in NO_INOTIFY)
    house = House(tmp_path / "house", under)
    try:
        house.add_settings(COMMANDS)
        house.start()
        for number in range(3):
            green(house, f"J{number}")
        log = house.log.read_text()
        assert log.count("spool default: inotify cannot watch it: ") == 1
        assert "spool default: polled every 1 s" in log
        assert "Traceback" not in log
    finally:
        house.close()


def test_a_spool_that_is_renamed_is_missed_and_found_again(house: House) -> None:
    house.start()
    green(house, "BEFORE")
    aside = house.folder / "aside"
    house.spool.rename(aside)
    wait_for(lambda: f"spool default: {house.spool}: cannot be seen" in house.log.read_text(), 5)
    (aside / "LATE.trafficlight").touch()
    (aside / "LATE.job").write_text("command=true\n")
    time.sleep(1.5)
    assert (aside / "LATE.job").exists()
    aside.rename(house.spool)
    assert house.verdict("LATE", 10) is None
    green(house, "AFTER")
    log = house.log.read_text()
    assert log.count("cannot be seen") == 1 and "spool default: all is well again" in log


def test_a_spool_that_is_deleted_and_made_again_is_served_again(house: House) -> None:
    house.start()
    for number in range(10 if WHOLE else 3):
        green(house, f"BEFORE{number}")
        shutil.rmtree(house.spool)
        if number % 2:
            wait_for(lambda number=number: house.log.read_text().count("cannot be seen") > number // 2, 5)  # type: ignore[misc]
        house.spool.mkdir()
        green(house, f"AFTER{number}")
        wait_for((house.spool / ".heartbeat").exists, 3)
    assert "Traceback" not in house.log.read_text()


@needs_root
def test_a_spool_that_is_mounted_over_and_unmounted_is_served_wherever_its_path_leads(house: House) -> None:
    house.start()
    green(house, "BELOW")
    for number in range(5 if WHOLE else 1):
        mount(house.spool)
        try:
            green(house, f"ABOVE{number}")
            wait_for((house.spool / ".heartbeat").exists, 3)
        finally:
            unmount(house.spool)
        green(house, f"AGAIN{number}")
    assert "Traceback" not in house.log.read_text()


@needs_strace
def test_a_spool_on_a_slow_disk_delays_and_no_more(tmp_path: Path) -> None:
    calls = "fsync,fdatasync,pwrite64,rename,renameat,renameat2,unlink,unlinkat"
    slow = (
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:delay_enter={DELAY}",
    )
    house = House(tmp_path / "house", slow)
    try:
        house.add_settings(COMMANDS)
        house.start()
        names = [f"J{number}" for number in range(SLOW)]
        for name in names:
            house.drop(name, "command=true")
        for name in names:
            assert house.verdict(name, 300) is None
        assert house.query("SELECT count(*), max(attempts) FROM QUEUE") == [(len(names), 1)]
        assert "ERROR" not in house.log.read_text()
    finally:
        house.close()
