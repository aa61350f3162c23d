"""A caller in Python keeps the same contract as one in bash."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.job import is_name
from orchestrator.spool import caller
from orchestrator.spool.caller import SpoolNotServed, drop, exit_status_of, wait_for_light, withdraw
from orchestrator.state import JobStatus
from tests.spool.place import Place


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
    with pytest.raises(SpoolNotServed, match="cannot be written") as told:
        drop(tmp_path / "nowhere", "CRM", [])

    assert told.value.exit_status == 69


def test_a_job_file_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SpoolNotServed, match="No space left on device"):
        drop(tmp_path, "CRM", [])

    assert os.listdir(tmp_path) == []


def test_the_light_stands_before_the_job_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        seen.append(target.with_suffix(".trafficlight").read_text())
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    drop(tmp_path, "CRM", [])

    assert seen == [""]


def test_green_is_0(place: Place) -> None:
    name = drop(place.path, "CRM", [])
    place.take()
    place.finish(name)
    place.release.release_all()

    assert wait_for_light(place.path, name) == (0, "")


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

    status_given, text = wait_for_light(place.path, name)
    assert status_given == expected
    assert text.endswith('reason="exit=5 in the reason"\nexit=9\n')
    assert place.listing() == []


def test_a_refused_job_is_65(place: Place) -> None:
    name = drop(place.path, "CRM", ["colour=red"])
    place.take()
    place.release.release_all()

    status, text = wait_for_light(place.path, name)
    assert status == 65
    assert "unknown key 'colour'" in text


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

    assert wait_for_light(tmp_path, "N") == (124, "TIMEOUT id=1\n")
    assert time.monotonic() - began > 0.1
    turn.join()


@pytest.mark.parametrize("heartbeat", ["none", "stale"])
def test_a_job_that_nobody_takes_is_69(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heartbeat: str) -> None:
    monkeypatch.setattr(caller, "LAST_LOOK", 0.02)
    name = drop(tmp_path, "CRM", [])
    if heartbeat == "stale":
        (tmp_path / ".heartbeat").touch()
        long_ago = time.time() - 181
        os.utime(tmp_path / ".heartbeat", (long_ago, long_ago))
    with pytest.raises(SpoolNotServed, match="no heartbeat") as told:
        wait_for_light(tmp_path, name)

    assert told.value.exit_status == 69
    assert (tmp_path / f"{name}.job").exists()
    assert (tmp_path / f"{name}.trafficlight").exists()


@pytest.mark.parametrize("served", [True, False], ids=["a heartbeat", "taken already"])
def test_a_caller_goes_on_waiting_while_there_is_hope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    monkeypatch.setattr(caller, "LAST_LOOK", 0.02)
    name = drop(tmp_path, "CRM", [])
    if served:
        (tmp_path / ".heartbeat").touch()
    else:
        (tmp_path / f"{name}.job").unlink()
    green = threading.Timer(0.3, (tmp_path / f"{name}.trafficlight").unlink)
    green.start()

    assert wait_for_light(tmp_path, name) == (0, "")
    green.join()


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
