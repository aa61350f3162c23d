"""Which process is which, and that a signal reaches only the one it is for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clock import seconds_since, tick, utc_now
from orchestrator.process import (
    ProcessIdentity,
    boot_id,
    identify,
    identify_caller,
    session_members,
    signal_caller,
)

NOBODY = 65534
ME = os.geteuid()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as process:
        yield process
        process.kill()


def identity_of(pid: int) -> ProcessIdentity:
    found = identify(pid)
    assert found is not None
    return found


def test_a_process_is_named_and_read_back(child: subprocess.Popen[bytes]) -> None:
    found = identity_of(child.pid)
    assert (found.pid, found.boot) == (child.pid, boot_id())
    assert ProcessIdentity.parse(str(found)) == found
    assert found.is_alive()


def test_a_zombie_is_not_alive_but_still_named_by_its_parent(child: subprocess.Popen[bytes]) -> None:
    found = identity_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not found.is_alive()
    assert identify(child.pid) is None
    assert ProcessIdentity.of_child(child.pid) == found


def test_a_process_that_is_gone_is_none(child: subprocess.Popen[bytes]) -> None:
    found = identity_of(child.pid)
    child.kill()
    child.wait()
    assert not found.is_alive()
    assert identify(child.pid) is None
    assert not signal_caller(found, ME, signal.SIGQUIT)
    with pytest.raises(AssertionError):
        ProcessIdentity.of_child(child.pid)


def test_a_reused_pid_is_another_process(child: subprocess.Popen[bytes]) -> None:
    now = identity_of(child.pid)
    for earlier in (
        ProcessIdentity(now.pid, now.start - 1, now.boot),
        ProcessIdentity(now.pid, now.start, "of another boot"),
    ):
        assert not earlier.is_alive()
        assert not signal_caller(earlier, ME, signal.SIGKILL)
    assert child.poll() is None


def test_a_process_whose_name_looks_like_its_stat_is_read_rightly(tmp_path: Path) -> None:
    program = tmp_path / ") S 1 (x"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "30"], start_new_session=True) as process:
        deadline = time.monotonic() + 5
        while ") S 1" not in Path(f"/proc/{process.pid}/comm").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        found = identity_of(process.pid)
        assert session_members(found, ME) == [process.pid]
        process.kill()


def test_the_signal_reaches_the_proven_caller(child: subprocess.Popen[bytes]) -> None:
    assert signal_caller(identity_of(child.pid), ME, signal.SIGTERM)
    assert child.wait(5) == -signal.SIGTERM


def test_no_signal_reaches_a_process_of_another_owner(child: subprocess.Popen[bytes]) -> None:
    assert not signal_caller(identity_of(child.pid), ME + 1, signal.SIGKILL)
    assert child.poll() is None


@pytest.mark.skipif(ME != 0, reason="only root can start another user's process")
def test_the_owner_is_the_real_user_not_the_one_it_was_started_by() -> None:
    with subprocess.Popen(["/bin/sleep", "30"], user=NOBODY, cwd="/") as process:
        found = identity_of(process.pid)
        assert not signal_caller(found, 0, signal.SIGKILL)
        assert identify_caller(process.pid, 0, time.time()) is None
        assert identify_caller(process.pid, NOBODY, time.time()) == found
        assert signal_caller(found, NOBODY, signal.SIGKILL)
        assert process.wait(5) == -signal.SIGKILL


def test_a_caller_is_proven_by_owner_and_by_having_been_there_before_its_file(child: subprocess.Popen[bytes]) -> None:
    now = time.time()
    assert identify_caller(child.pid, ME, now) == identity_of(child.pid)
    assert identify_caller(child.pid, ME + 1, now) is None
    assert identify_caller(child.pid, ME, now - 60) is None
    assert identify_caller(2**22, ME, now) is None


def test_the_members_of_a_session_are_all_its_children_and_nobody_else() -> None:
    with subprocess.Popen(
        ["/bin/sh", "-c", "sleep 30 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        grandchild = int(leader.stdout.readline())
        found = identity_of(leader.pid)
        assert sorted(session_members(found, ME)) == sorted([leader.pid, grandchild])
        assert session_members(found, ME + 1) == []
        leader.kill()
        leader.wait()
        assert session_members(found, ME) == [grandchild]
        os.kill(grandchild, signal.SIGKILL)


def test_a_later_session_under_the_same_number_is_nobody_of_ours(child: subprocess.Popen[bytes]) -> None:
    now = identity_of(child.pid)
    assert session_members(ProcessIdentity(now.pid, now.start - 1, now.boot), ME) == []
    assert session_members(ProcessIdentity(now.pid, now.start, "of another boot"), ME) == []


@pytest.mark.parametrize("text", ["", "1", "1:2", "x:1:boot", "1:x:boot", "0:1:boot", "-1:1:boot", "4194305:1:boot"])
def test_what_names_no_process_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        ProcessIdentity.parse(text)


@given(st.text(st.sampled_from("12:-x "), max_size=60))
def test_any_text_is_an_identity_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert ProcessIdentity.parse(text).pid > 0


def test_waiting_is_measured_by_the_time_since_boot_however_the_wall_clock_jumps() -> None:
    assert -0.01 < seconds_since(tick(), "1999-01-01T00:00:00.000000Z") < 5  # ticks are rounded
    assert -0.01 < seconds_since(tick(), "2999-01-01T00:00:00.000000Z") < 5


def test_after_a_reboot_only_the_wall_clock_can_tell() -> None:
    assert 0 <= seconds_since("another-boot 5.0", utc_now()) < 5
    assert seconds_since("another-boot 5.0", "1999-01-01T00:00:00.000000Z") > 1e8
    assert seconds_since("another-boot 5.0", "2999-01-01T00:00:00.000000Z") == 0
