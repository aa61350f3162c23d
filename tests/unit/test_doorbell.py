"""Wake-ups: a ring wakes, a lost one harms nobody."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.doorbell import Bell, Doorbell, ring


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made


def test_a_ring_wakes_the_one_who_waits(bell: Bell) -> None:
    ringer = threading.Timer(0.02, bell.ring)
    ringer.start()
    began = time.monotonic()
    assert bell.wait(10)
    assert time.monotonic() - began < 5
    ringer.join()


def test_rings_before_the_wait_are_kept_as_one(bell: Bell) -> None:
    for _ in range(5):
        bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)


def test_nobody_rings_and_the_wait_ends_by_itself(bell: Bell) -> None:
    assert not bell.wait(0.01)
    assert not bell.wait(-1)


def test_something_to_read_elsewhere_ends_the_wait_too(bell: Bell) -> None:
    out, into = os.pipe()
    os.write(into, b"x")
    assert not bell.wait(10, (out,))
    os.close(out)
    os.close(into)


def test_a_ring_from_outside_is_heard_once(tmp_path: Path, bell: Bell) -> None:
    with Doorbell(tmp_path, "schedule") as doorbell:
        assert not doorbell.answer()
        ring(tmp_path, "schedule")
        ring(tmp_path, "schedule")
        assert not bell.wait(10, (doorbell.socket.fileno(),))
        assert doorbell.answer()
        assert not doorbell.answer()


def test_a_ring_is_for_one_kind_of_program_only(tmp_path: Path) -> None:
    with Doorbell(tmp_path, "schedule") as doorbell:
        ring(tmp_path, "watch")
        ring(tmp_path, "sched")
        assert not doorbell.answer()


def test_every_daemon_of_the_kind_hears_it(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom orchestrator.doorbell import Bell, Doorbell\n"
        "with Doorbell(pathlib.Path(sys.argv[1]), 'schedule') as d:\n"
        "    print('ready', flush=True)\n    Bell().wait(10, (d.socket.fileno(),))\n    print(d.answer(), flush=True)\n"
    )
    with Doorbell(tmp_path, "schedule") as doorbell:
        other = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        ring(tmp_path, "schedule")
        assert doorbell.answer()
        assert other.communicate(timeout=10)[0] == "True\n"


def test_a_ring_where_nobody_lives_is_lost_and_harms_nobody(tmp_path: Path) -> None:
    ring(tmp_path, "schedule")
    ring(tmp_path / "nowhere", "schedule")
    (tmp_path / "doorbells").mkdir()
    ring(tmp_path, "schedule")
    (tmp_path / "doorbells" / "schedule.1").write_text("no socket")
    ring(tmp_path, "schedule")


def test_a_doorbell_that_is_full_loses_rings_and_holds_nobody_up(tmp_path: Path) -> None:
    with Doorbell(tmp_path, "schedule") as doorbell:
        for _ in range(1000):
            ring(tmp_path, "schedule")
        assert doorbell.answer()


def test_the_socket_of_a_killed_daemon_is_taken_away(tmp_path: Path) -> None:
    with Doorbell(tmp_path, "schedule") as doorbell:
        dead = tmp_path / "doorbells" / "schedule.999999999"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
            left.bind(str(dead))
        ring(tmp_path, "schedule")
        assert not dead.exists()
        assert doorbell.answer()


def test_a_daemon_that_was_killed_finds_its_own_name_free(tmp_path: Path) -> None:
    (tmp_path / "doorbells").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(tmp_path / "doorbells" / f"schedule.{os.getpid()}"))
    with Doorbell(tmp_path, "schedule") as doorbell:
        ring(tmp_path, "schedule")
        assert doorbell.answer()
    assert list((tmp_path / "doorbells").iterdir()) == []


def test_a_path_that_is_too_long_for_a_socket_works_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with Doorbell(deep, "schedule") as doorbell:
        ring(deep, "schedule")
        assert doorbell.answer()


def test_only_the_owner_may_ring(tmp_path: Path) -> None:
    with Doorbell(tmp_path, "schedule"):
        assert (tmp_path / "doorbells").stat().st_mode & 0o077 == 0
