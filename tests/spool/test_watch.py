"""The thread around intake: woken by events, and by itself where no event told; nothing stops it for good."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peewee import DatabaseError, OperationalError
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, Mask, WatchDescriptor

from orchestrator.spool import claim, observe, watch
from orchestrator.spool.directory import SpoolDirectory
from orchestrator.spool.watch import SpoolWatch, schedule_is_alive
from orchestrator.store.taking import take
from tests.spool.place import HOST, SETTINGS, Place, bash, output_of, until

Watching = Callable[[], SpoolWatch]


@pytest.fixture
def taken() -> list[str]:
    """Give what the watch was glad of: one mark each time new rows were written."""
    return []


@pytest.fixture
def watching(place: Place, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    """Give a way to start a watch that does not rescan while the test lasts, and retries soon."""
    monkeypatch.setattr(watch, "RESCAN", 60.0)
    monkeypatch.setattr(watch, "RETRY", 0.05)
    monkeypatch.setattr(watch, "BEAT", 0.05)
    started: list[SpoolWatch] = []

    def start() -> SpoolWatch:
        thread = SpoolWatch(place.settings, place.spool, HOST, lambda: taken.append("taken"))
        thread.start()
        started.append(thread)
        until(lambda: thread._observer is not None, "the observer")
        return thread

    yield start
    for thread in started:
        thread.stop()
        thread.join(5)
        assert not thread.is_alive()


def status(place: Place, name: str) -> str | None:
    """Give a job's status, where there is one."""
    return place.statuses().get(name)


def test_what_lies_there_at_the_start_is_taken(place: Place, watching: Watching, taken: list[str]) -> None:
    place.drop("CRM")
    watching()

    until(lambda: taken, "the bell")
    assert status(place, "CRM") == "QUEUED"


def test_files_are_taken_one_after_another_without_delay(place: Place, watching: Watching) -> None:
    watching()
    delays = []
    for number in range(20):
        began = time.monotonic()
        file = place.drop(f"J{number}")
        until(lambda file=file: not file.exists(), "the claim")  # type: ignore[misc]
        delays.append(time.monotonic() - began)
    until(lambda: len(place.rows()) == 20, "the rows")

    assert sorted(delays)[10] < 0.2
    assert sum(delays) < 20 * 0.4


def test_files_of_a_shell_are_taken_however_they_come(place: Place, watching: Watching, taken: list[str]) -> None:
    watching()
    output_of(bash("echo job=X > A.job; touch B.job; echo x=1 > .C; mv .C C.job; ln -s A .D; mv .D D.job", place.path))

    until(lambda: len(place.rows()) == 4, "the rows")
    assert place.statuses() == {"A": "QUEUED", "B": "QUEUED", "C": "REJECTED", "D": "REJECTED"}


def test_a_cancel_file_is_acted_on_at_once(place: Place, watching: Watching) -> None:
    watching()
    place.drop("CRM")
    until(lambda: status(place, "CRM"), "the row")
    (place.path / "CRM.cancel").touch()

    until(lambda: status(place, "CRM") == "CANCELLED", "the end")


def test_what_no_event_told_is_found_by_a_rescan(
    place: Place, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RESCAN", 0.1)
    watching()
    (place.folder / "outside").write_text("job=A\n")
    os.link(place.folder / "outside", place.path / "CRM.job")  # no event of those that are asked for
    (place.folder / "outside").unlink()

    until(lambda: status(place, "CRM"), "the row")


def test_what_an_overflow_swallowed_is_found_at_once(place: Place, watching: Watching) -> None:
    thread = watching()
    place.drop("FIRST")
    until(lambda: status(place, "FIRST"), "the first look")
    (place.folder / "outside").write_text("job=A\n")
    os.link(place.folder / "outside", place.path / "CRM.job")
    (place.folder / "outside").unlink()
    time.sleep(0.1)
    assert status(place, "CRM") is None
    assert isinstance(thread._observer, observe.SpoolObserver)
    thread._observer.handle_event(InotifyEvent(WatchDescriptor(-1), Mask(InotifyConstants.IN_Q_OVERFLOW), 0, b""))

    until(lambda: status(place, "CRM"), "the row")


def test_an_observer_that_has_died_is_replaced(
    place: Place, watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "BEAT", 0.05)
    thread = watching()
    place.drop("FIRST")
    until(lambda: status(place, "FIRST"), "the first look")
    assert thread._observer is not None
    thread._observer.stop()
    until(lambda: "is observed anew" in caplog.text, "the word of it")
    place.drop("SECOND")

    until(lambda: status(place, "SECOND"), "the row")
    assert thread._observer.is_alive()


@pytest.mark.parametrize("how", ["removed", "moved away"])
def test_a_spool_that_goes_and_comes_back_is_watched_again(
    place: Place, watching: Watching, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level("INFO")
    watching()
    place.drop("FIRST")
    until(lambda: status(place, "FIRST"), "the row")
    shutil.rmtree(place.path) if how == "removed" else place.path.rename(place.folder / "away")
    until(lambda: "cannot be seen" in caplog.text, "the complaint")
    time.sleep(0.2)
    place.path.mkdir()
    place.drop("SECOND")
    until(lambda: status(place, "SECOND"), "the row of a look")
    place.drop("THIRD")
    until(lambda: status(place, "THIRD"), "the row of an event")

    assert caplog.text.count("cannot be seen") == 1
    assert "all is well again" in caplog.text


def test_a_spool_may_be_polled(place: Place, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "POLL_INTERVAL", 0.05)
    polled = Place(place.folder, SETTINGS.replace('path = "spool"', 'path = "spool"\nobserver = "polling"'))
    thread = SpoolWatch(polled.settings, polled.spool, HOST, lambda: taken.append("taken"))
    thread.start()
    try:
        until(lambda: thread._observer is not None, "the observer")
        time.sleep(0.1)
        place.drop("CRM")
        until(lambda: status(place, "CRM"), "the row")
    finally:
        thread.stop()
        thread.join(5)


def test_a_polled_file_is_not_taken_half_written_where_no_lease_can_tell(
    place: Place, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll tells that a file came, or grew; not that its writer, maybe on another host, has closed it."""
    real = fcntl.fcntl

    def no_leases(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(22, "Invalid argument")
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", no_leases)
    monkeypatch.setattr(observe, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(claim, "SETTLED", 0.5)
    monkeypatch.setattr(watch, "SETTLED", 0.5, raising=False)
    polled = Place(place.folder, SETTINGS.replace('path = "spool"', 'path = "spool"\nobserver = "polling"'))
    thread = SpoolWatch(polled.settings, polled.spool, HOST, lambda: taken.append("taken"))
    thread.start()
    try:
        until(lambda: thread._observer is not None, "the observer")
        time.sleep(0.1)
        with open(place.path / "CRM.job", "w") as slow:
            for word in ("job", "=", "MASK", "_", "CRM"):
                slow.write(word)
                slow.flush()
                time.sleep(0.06)
        until(lambda: status(place, "CRM"), "the row")
    finally:
        thread.stop()
        thread.join(5)

    assert [job.job for job in place.rows()] == ["MASK_CRM"]


def test_where_inotify_has_no_room_the_spool_is_served_all_the_same(
    place: Place, watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limits on inotify instances and watches are the whole host's."""

    def no_room(*args: object, **options: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(observe, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(observe.SpoolObserver, "add_callback", no_room)
    place.drop("FIRST")
    threads_before = len(os.listdir("/proc/self/task"))
    watching()
    until(lambda: status(place, "FIRST"), "the row of the first look")
    place.drop("SECOND")
    until(lambda: status(place, "SECOND"), "the row of a poll")

    assert caplog.text.count("inotify watch limit reached") == 1
    assert len(os.listdir("/proc/self/task")) < threads_before + 6


def beat_of(place: Place, age: float) -> None:
    """Let the schedule program have shown a sign of life so long ago."""
    file = place.settings.run_dir / "schedule.beat"
    file.touch()
    os.utime(file, (time.time() - age, time.time() - age))


def test_the_heartbeat_is_written_while_something_schedules(place: Place, watching: Watching) -> None:
    heartbeat = place.path / ".heartbeat"
    beat_of(place, 0)
    watching()
    until(heartbeat.exists, "the heartbeat")
    first = heartbeat.stat().st_mtime_ns
    until(lambda: heartbeat.stat().st_mtime_ns > first, "the next heartbeat")

    beat_of(place, watch.SCHEDULE_SILENT + 1)
    time.sleep(0.1)
    last = heartbeat.stat().st_mtime_ns
    time.sleep(0.2)
    assert heartbeat.stat().st_mtime_ns == last


@pytest.mark.parametrize("age", [None, 151.0])
def test_no_heartbeat_is_written_where_nothing_schedules(place: Place, watching: Watching, age: float | None) -> None:
    if age is not None:
        beat_of(place, age)
    watching()
    place.drop("CRM")
    until(lambda: status(place, "CRM"), "the row")
    time.sleep(0.15)

    assert not (place.path / ".heartbeat").exists()


def test_schedule_is_alive_for_150_seconds(place: Place) -> None:
    run_dir = place.settings.run_dir
    assert not schedule_is_alive(run_dir)
    beat_of(place, 140)
    assert schedule_is_alive(run_dir)
    beat_of(place, 160)
    assert not schedule_is_alive(run_dir)


ERRORS = [
    OperationalError("database or disk is full"),
    OSError(28, "No space left on device"),
    DatabaseError("database disk image is malformed"),
    RuntimeError("a bug"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_what_keeps_a_job_from_being_recorded_keeps_its_caller_waiting_and_no_more(
    place: Place,
    watching: Watching,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    tries = []

    def full(arrivals: object) -> None:
        tries.append(arrivals)
        raise error

    caplog.set_level("INFO")
    thread = watching()
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.spool.intake.take", full)
        file = place.drop("CRM", "job=MASK_CRM\n")
        until(lambda: len(tries) >= 4, "some tries")
        assert thread.is_alive()
        assert place.light("CRM").read_text() == ""
        assert place.rows() == []
        if isinstance(error, OperationalError | OSError):
            until(file.exists, "the job file in its place")
        patch.setattr("orchestrator.spool.intake.take", take)
        until(lambda: status(place, "CRM"), "the row")
    until(lambda: "all is well again" in caplog.text, "the good news")

    assert [job.job for job in place.rows()] == ["MASK_CRM"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert place.private() == []


def test_a_directory_among_the_jobs_of_a_full_disk_holds_up_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(arrivals: object) -> None:
        raise OperationalError("database or disk is full")

    (place.path / "A.job").mkdir()  # which cannot be linked back
    place.drop("B")
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.spool.intake.take", full)
        with pytest.raises(Exception, match="disk is full"):
            place.take()
    assert (place.path / "B.job").exists()
    place.take()

    assert place.statuses() == {"A": "REJECTED", "B": "QUEUED"}


def test_a_stranger_that_locks_the_database_loses_nothing(
    place: Place, watching: Watching, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watching()
    place.drop("FIRST")
    until(lambda: status(place, "FIRST"), "the row")
    stranger = sqlite3.connect(tmp_path / "orchestrator.db", isolation_level=None)
    stranger.execute("BEGIN EXCLUSIVE")
    for number in range(5):
        place.drop(f"J{number}", light=False)
    until(lambda: "database is locked" in caplog.text, "the complaint")
    (place.path / "FIRST.cancel").touch()
    time.sleep(0.3)
    assert len(place.rows()) == 1
    stranger.execute("COMMIT")
    stranger.close()

    until(lambda: len(place.rows()) == 6, "the rows")
    until(lambda: status(place, "FIRST") == "CANCELLED", "the cancel file")
    assert {job.status for job in place.rows() if job.name.startswith("J")} == {"QUEUED"}
    assert [place.light(f"J{number}").read_text() for number in range(5)] == [""] * 5


def test_a_watch_stops_when_it_is_asked_to(place: Place, watching: Watching) -> None:
    thread = watching()
    began = time.monotonic()
    thread.stop()
    thread.join(5)

    assert not thread.is_alive()
    assert time.monotonic() - began < 2


def test_a_heartbeat_that_cannot_be_shown_keeps_no_job_from_being_taken(
    place: Place, watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    beat_of(place, 0)
    beats = []

    def fault(_: SpoolDirectory) -> None:
        beats.append("tried")
        raise PermissionError(1, "Operation not permitted", ".heartbeat")

    with monkeypatch.context() as patch:
        patch.setattr(SpoolDirectory, "beat", fault)
        watching()
        place.drop("CRM")
        until(lambda: status(place, "CRM"), "the row")
        until(lambda: len(beats) > 2, "some tries")
    assert caplog.text.count("Operation not permitted") == 1
    until((place.path / ".heartbeat").exists, "the heartbeat")


@pytest.mark.parametrize("foreign", ["file", "link"])
def test_a_heartbeat_that_is_not_ours_is_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, foreign: str
) -> None:
    """The kernel lets nobody but its owner, and root, touch a file as of now."""
    heartbeat, real = place.path / ".heartbeat", os.utime
    (tmp_path / "another").touch()
    os.utime(tmp_path / "another", (0, 0))
    if foreign == "link":
        heartbeat.symlink_to(tmp_path / "another")
    else:
        (tmp_path / "another").rename(heartbeat)

    def utime(path: str, *rest: Any, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", utime)
        with SpoolDirectory(place.path) as spool:
            spool.beat()
    assert not heartbeat.is_symlink()
    assert time.time() - heartbeat.stat().st_mtime < 5
    assert place.private() == []
    real(heartbeat, (0, 0))
    with SpoolDirectory(place.path) as spool:
        spool.beat()
    assert time.time() - heartbeat.stat().st_mtime < 5
