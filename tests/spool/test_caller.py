"""A caller in Python keeps the same contract as one in bash."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.job import is_name
from orchestrator.spool import caller
from orchestrator.spool.caller import Caller, SpoolNotServed, Verdict, exit_status_of
from orchestrator.state import JobStatus
from tests.spool.place import Place


def drop(spool: Path, job: str, pairs: list[str]) -> str:
    with Caller(spool) as one:
        return one.drop(job, pairs)


def wait(spool: Path, name: str) -> Verdict:
    with Caller(spool) as one:
        return one.wait(name)


def withdraw(spool: Path, name: str) -> str:
    with Caller(spool) as one:
        return one.withdraw(name)


@contextlib.contextmanager
def after(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do something else meanwhile."""
    timer = threading.Timer(seconds, act)
    timer.start()
    yield
    timer.join()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing take longer than it must."""
    monkeypatch.setattr(caller, "LAST_LOOK", 0.02)
    monkeypatch.setattr(caller, "HEARTBEAT_GRACE", 0.1)
    monkeypatch.setattr(caller, "MOVED_GRACE", 0.3)


def test_a_dropped_job_is_taken_with_its_pairs(place: Place) -> None:
    name = drop(place.path, "MASK_CRM", ["priority=7", "param.x=a=b"])
    assert place.listing() == [f"{name}.job", f"{name}.trafficlight"]
    assert os.listdir(place.path).count(f".{name}.tmp") == 0
    place.take()

    job = place.row(name)
    assert (job.status, job.job, job.priority, job.params) == ("QUEUED", "MASK_CRM", 7, '{"x": "a=b"}')


@pytest.mark.parametrize("job", ["MASK_CRM", "-rf", ".hidden", "", "a b/c", "grüße", "x" * 4000, "@", "a@b"])
def test_whatever_a_job_is_called_its_file_has_a_good_name(place: Place, job: str) -> None:
    name = drop(place.path, job, [])
    other = drop(place.path, job, [])

    assert is_name(name)
    assert name != other
    place.take()
    assert place.row(name).job == (job or None)


@pytest.mark.parametrize("pair", ["priority", "a=b\npid=1", ""])
def test_what_is_no_pair_is_wrong_usage(tmp_path: Path, pair: str) -> None:
    with pytest.raises(UsageError) as told:
        drop(tmp_path, "CRM", ["priority=1", pair])

    assert told.value.exit_status == 64
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("job", ["CRM\npriority=100", "caf\udce9"])
def test_a_job_of_two_lines_or_of_no_utf_8_is_wrong_usage(tmp_path: Path, job: str) -> None:
    with pytest.raises(UsageError):
        drop(tmp_path, job, [])

    assert os.listdir(tmp_path) == []


def test_a_spool_that_is_not_there_is_69(tmp_path: Path) -> None:
    with pytest.raises(SpoolNotServed, match="cannot be opened") as told:
        drop(tmp_path / "nowhere", "CRM", [])

    assert told.value.exit_status == 69


def test_a_job_file_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(SpoolNotServed, match="No space left on device"):
        drop(tmp_path, "CRM", [])

    assert os.listdir(tmp_path) == []


def test_the_light_stands_before_the_job_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = os.rename

    def rename(old: str, new: str, **folders: int) -> None:
        seen.append((tmp_path / new).with_suffix(".trafficlight").read_text())
        real(old, new, **folders)

    monkeypatch.setattr(os, "rename", rename)
    drop(tmp_path, "CRM", [])

    assert seen == [""]


def test_a_name_is_announced_before_anybody_can_take_the_job(tmp_path: Path) -> None:
    seen = []
    with Caller(tmp_path) as one:
        name = one.drop("CRM", [], lambda name: seen.append((name, list(tmp_path.glob("*.job")))))

    assert seen == [(name, [])]


def test_a_name_that_cannot_be_announced_leaves_no_job_behind(tmp_path: Path) -> None:
    def full(name: str) -> None:
        raise OSError(28, "No space left on device")

    with Caller(tmp_path) as one, pytest.raises(OSError, match="No space"):
        one.drop("CRM", [], full)

    assert os.listdir(tmp_path) == []


def test_green_is_0(place: Place) -> None:
    name = drop(place.path, "CRM", [])
    place.take()
    place.finish(name)
    place.release.release_all()

    assert wait(place.path, name) == Verdict(0, None)


@pytest.mark.parametrize(("status", "exit_status", "expected"), [
    (JobStatus.FAILED, 7, 7),
    (JobStatus.FAILED, 64, 1),
    (JobStatus.FAILED, 0, 1),
    (JobStatus.FAILED, None, 1),
    (JobStatus.CANCELLED, None, 66),
    (JobStatus.CANCELLED, 7, 66),
    (JobStatus.TIMEOUT, 7, 124),
])  # fmt: skip
def test_red_is_what_the_protocol_says_and_the_light_goes(
    place: Place, status: JobStatus, exit_status: int | None, expected: int
) -> None:
    name = drop(place.path, "CRM", [])
    place.take()
    place.end(name, status, "exit=5 in the reason", exit_status=exit_status, detail="exit=9")
    place.release.release_all()

    verdict = wait(place.path, name)
    assert verdict.status == expected
    assert (verdict.light or "").endswith('reason="exit=5 in the reason"\nexit=9\n')
    assert place.listing() == []


def test_a_refused_job_is_65(place: Place) -> None:
    name = drop(place.path, "CRM", ["colour=red"])
    place.take()
    place.release.release_all()

    verdict = wait(place.path, name)
    assert verdict.status == 65
    assert "unknown key 'colour'" in (verdict.first_line or "")


@pytest.mark.parametrize(("line", "status"), [
    ("FAILED", 1),
    ('FAILED id=1 exit=63 reason="x"', 63),
    ('FAILED id=1 exit=1 reason="x"', 1),
    ("FAILED exit=-1", 1),
    ("FAILED exit=", 1),
    ("FAILED exit=1e1", 1),
    ("FAILED exit=\u00b2", 1),
    ("FAILED exit=999999999999999999999", 1),
    ('FAILED id=1 reason="no room exit=7"', 1),
    ("REJECTED", 65),
    ("CANCELLED id=3", 66),
    ("TIMEOUT id=3 exit=2", 124),
    ("SOMETHING new", 1),
    ("", 1),
    ("   ", 1),
])  # fmt: skip
def test_the_first_line_tells_the_exit_status(line: str, status: int) -> None:
    assert exit_status_of(line) == status


def test_a_waiting_caller_sees_the_light_change(tmp_path: Path) -> None:
    light = tmp_path / "N.trafficlight"
    light.touch()
    (tmp_path / ".red").write_text("TIMEOUT id=1\n")
    turn = threading.Timer(0.15, lambda: (tmp_path / ".red").rename(light))
    turn.start()
    began = time.monotonic()

    assert wait(tmp_path, "N") == Verdict(124, "TIMEOUT id=1\n")
    assert time.monotonic() - began > 0.1
    turn.join()


def test_a_light_removed_while_the_job_file_still_stands_is_not_green(tmp_path: Path) -> None:
    name = drop(tmp_path, "CRM", [])
    (tmp_path / f"{name}.trafficlight").unlink()
    with after(0.2, (tmp_path / f"{name}.job").unlink):
        began = time.monotonic()
        assert wait(tmp_path, name) == Verdict(0, None)
    assert time.monotonic() - began > 0.15


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["moved", "moved, and another one is there", "removed"])
def test_a_light_that_went_with_its_whole_spool_is_not_green(tmp_path: Path, how: str) -> None:
    spool, elsewhere = tmp_path / "spool", tmp_path / "elsewhere"
    spool.mkdir()
    with Caller(spool) as one:
        name = one.drop("CRM", [])
        (spool / f"{name}.job").unlink()
        if how == "removed":
            (spool / f"{name}.trafficlight").unlink()
            spool.rmdir()
        else:
            spool.rename(elsewhere)
            (elsewhere / f"{name}.trafficlight").unlink()
        if "another" in how:
            spool.mkdir()
        with pytest.raises(SpoolNotServed, match="removed, moved or unmounted") as told:
            one.wait(name)

    assert told.value.exit_status == 69


@pytest.mark.usefixtures("hasty")
def test_a_spool_that_is_moved_away_with_its_red_light_ends_the_wait(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    with Caller(spool) as one:
        name = one.drop("CRM", [])
        spool.rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / f"{name}.job").unlink()
        with pytest.raises(SpoolNotServed, match="removed, moved or unmounted: ask the orchestrator"):
            one.wait(name)


@pytest.mark.usefixtures("hasty")
def test_a_job_that_was_not_taken_is_withdrawn_from_a_spool_that_was_moved(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    with Caller(spool) as one:
        name = one.drop("CRM", [])
        spool.rename(tmp_path / "elsewhere")
        with pytest.raises(SpoolNotServed, match=f"removed, moved or unmounted: job {name} was withdrawn"):
            one.wait(name)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_taken_job_in_a_spool_that_was_moved_is_not_said_to_be_cancelled(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    with Caller(spool) as one:
        name = one.drop("CRM", [])
        (spool / f"{name}.job").unlink()
        spool.rename(tmp_path / "elsewhere")
        assert one.withdraw(name) == f"the spool {spool} was removed, moved or unmounted: job {name} may go on"
        assert os.listdir(tmp_path / "elsewhere") == [f"{name}.trafficlight"]


@pytest.mark.usefixtures("hasty")
def test_a_spool_that_comes_back_within_a_moment_is_waited_in(tmp_path: Path) -> None:
    spool, elsewhere = tmp_path / "spool", tmp_path / "elsewhere"
    spool.mkdir()
    with Caller(spool) as one:
        name = one.drop("CRM", [])
        (spool / f"{name}.job").unlink()
        spool.rename(elsewhere)

        def back() -> None:
            elsewhere.rename(spool)
            time.sleep(0.4)
            (spool / f"{name}.trafficlight").unlink()

        with after(0.1, back):
            assert one.wait(name) == Verdict(0, None)


def test_a_verdict_counts_also_where_its_light_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sticky(*args: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "N.trafficlight").write_text("FAILED id=1 exit=7\n")
    monkeypatch.setattr(os, "unlink", sticky)

    assert wait(tmp_path, "N") == Verdict(7, "FAILED id=1 exit=7\n")
    assert f"the light {tmp_path}/N.trafficlight cannot be removed: Operation not permitted" in caplog.text


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("heartbeat", ["none", "stale"])
def test_a_job_that_nobody_takes_is_withdrawn_after_a_grace_and_69(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, heartbeat: str
) -> None:
    name = drop(tmp_path, "CRM", [])
    if heartbeat == "stale":
        (tmp_path / ".heartbeat").touch()
        long_ago = time.time() - 181
        os.utime(tmp_path / ".heartbeat", (long_ago, long_ago))
    began = time.monotonic()
    with pytest.raises(SpoolNotServed, match=rf"no heartbeat.*: job {name} was withdrawn") as told:
        wait(tmp_path, name)

    assert time.monotonic() - began >= 0.1
    assert told.value.exit_status == 69
    assert [file for file in os.listdir(tmp_path) if file != ".heartbeat"] == []
    assert "start it within 0.1 s" in caplog.text


@pytest.mark.usefixtures("hasty")
def test_a_heartbeat_that_comes_within_the_grace_lets_the_job_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caller, "HEARTBEAT_GRACE", 0.3)
    name = drop(tmp_path, "CRM", [])

    def serve() -> None:
        (tmp_path / ".heartbeat").touch()
        time.sleep(0.4)
        (tmp_path / f"{name}.job").unlink()
        (tmp_path / f"{name}.trafficlight").unlink()

    with after(0.1, serve):
        assert wait(tmp_path, name) == Verdict(0, None)
    assert "is served again" in caplog.text


@pytest.mark.usefixtures("hasty")
def test_a_job_that_is_taken_just_when_it_would_be_withdrawn_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = drop(tmp_path, "CRM", [])
    real = os.rename

    def late(old: str, new: str, **folders: int) -> None:
        if old == f"{name}.job":
            (tmp_path / old).unlink(missing_ok=True)
        real(old, new, **folders)

    monkeypatch.setattr(os, "rename", late)
    with after(0.5, (tmp_path / f"{name}.trafficlight").unlink):
        assert wait(tmp_path, name) == Verdict(0, None)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("served", [True, False], ids=["a heartbeat", "taken already"])
def test_a_caller_goes_on_waiting_while_there_is_hope(tmp_path: Path, served: bool) -> None:
    name = drop(tmp_path, "CRM", [])
    if served:
        (tmp_path / ".heartbeat").touch()
    else:
        (tmp_path / f"{name}.job").unlink()

    def end() -> None:
        (tmp_path / f"{name}.job").unlink(missing_ok=True)
        (tmp_path / f"{name}.trafficlight").unlink()

    with after(0.3, end):
        assert wait(tmp_path, name) == Verdict(0, None)


def test_a_caller_that_goes_before_its_job_is_taken_takes_the_job_file_along(place: Place) -> None:
    name = drop(place.path, "CRM", [])
    withdraw(place.path, name)

    assert place.take() == 0
    assert not list(place.path.glob("CRM*"))


def test_a_caller_that_goes_later_cancels_its_job_and_leaves_nothing(place: Place) -> None:
    name = drop(place.path, "CRM", [])
    place.take()
    withdraw(place.path, name)
    place.take()
    place.release.release_all()

    assert place.row(name).status == "CANCELLED"
    assert not list(place.path.glob("CRM*"))
