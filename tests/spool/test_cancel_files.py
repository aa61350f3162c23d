"""NAME.cancel ends the job called NAME, whatever it is doing, and then goes."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from orchestrator.spool import intake as intake_module
from orchestrator.spool.claim import claim
from orchestrator.spool.directory import SpoolDirectory
from orchestrator.spool.intake import Intake
from orchestrator.store.database import StoreBusy, close_database
from tests.spool.place import HOST, Place, bash, moves_of, output_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def cancel(place: Place, name: str) -> Path:
    """Drop a cancel file."""
    file = place.path / f"{name}.cancel"
    file.touch()
    return file


def test_a_waiting_job_leaves_the_queue(place: Place) -> None:
    place.drop("CRM")
    place.take()
    file = cancel(place, "CRM")
    place.intake.take_files([file.name], certain=True)

    job = place.row("CRM")
    assert (job.status, job.reason) == ("CANCELLED", "cancelled by CRM.cancel")
    assert moves_of(job) == ["-> QUEUED", "QUEUED -> CANCELLED"]
    assert not file.exists()
    place.release.release_all()
    assert (
        place.light("CRM").read_text() == 'CANCELLED id=1 job=CRM reason="cancelled by CRM.cancel"\n'
    )  # who was never placed has no engine


def test_a_running_job_is_asked_to_end(place: Place) -> None:
    place.drop("CRM")
    place.take()
    place.run("CRM")
    file = cancel(place, "CRM")
    place.take()

    job = place.row("CRM")
    assert (job.status, job.ending, job.ending_why) == ("RUNNING", "CANCELLED", "cancelled by CRM.cancel")
    assert not file.exists()
    cancel(place, "CRM")
    place.take()
    assert moves_of(job).count("CANCELLED asked") == 1


def test_a_job_may_be_cancelled_before_its_file_is_taken(place: Place) -> None:
    place.drop("CRM")
    cancel(place, "CRM")
    place.take()

    assert place.statuses() == {"CRM": "CANCELLED"}
    assert place.listing() == ["CRM.trafficlight"]


def test_a_cancel_file_waits_for_a_job_file_that_is_still_written(place: Place) -> None:
    with open(place.path / "CRM.job", "w"):
        file = cancel(place, "CRM")
        place.take()
        assert file.exists()
    place.intake.take_files(["CRM.job"], certain=True)
    place.take()

    assert place.statuses() == {"CRM": "CANCELLED"}
    assert not file.exists()


@pytest.mark.parametrize("name", ["NOBODY", "bad name", "n" * 240])
def test_a_cancel_file_of_nobody_goes(place: Place, name: str, caplog: pytest.LogCaptureFixture) -> None:
    file = cancel(place, name)
    place.take()

    assert not file.exists()
    assert "no such job waits or runs" in caplog.text
    assert place.rows() == []


def test_a_job_that_has_ended_stays_as_it_ended(place: Place) -> None:
    place.drop("CRM")
    place.take()
    place.finish("CRM")
    file = cancel(place, "CRM")
    place.take()

    assert place.row("CRM").status == "FINISHED"
    assert not file.exists()


@as_root
@pytest.mark.parametrize(("job_owner", "cancel_owner", "cancelled"), [
    (12345, 12345, True),
    (12345, 12346, False),
    (0, 12345, False),
    (12345, 0, True),
])  # fmt: skip
def test_only_the_owner_and_the_administrator_may_cancel(
    place: Place, job_owner: int, cancel_owner: int, cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    os.chown(place.drop("CRM"), job_owner, -1)
    place.take()
    file = cancel(place, "CRM")
    os.chown(file, cancel_owner, -1)
    place.take()

    assert place.statuses() == {"CRM": "CANCELLED" if cancelled else "QUEUED"}
    assert not file.exists()
    assert ("may not cancel a job" in caplog.text) is not cancelled


@as_root
def test_a_link_to_the_owners_file_is_not_the_owners_word(place: Place, tmp_path: Path) -> None:
    os.chown(place.drop("CRM"), 12345, -1)
    place.take()
    (tmp_path / "his").touch()
    os.chown(tmp_path / "his", 12345, -1)
    link = place.path / "CRM.cancel"
    link.symlink_to(tmp_path / "his")
    os.chown(link, 12346, -1, follow_symlinks=False)
    place.take()

    assert place.statuses() == {"CRM": "QUEUED"}
    assert (tmp_path / "his").exists()


def test_a_directory_cancels_too_and_goes(place: Place) -> None:
    for _ in range(2):
        place.drop("CRM")
        place.take()
        (place.path / "CRM.cancel").mkdir()
        (place.path / "CRM.cancel" / "inside").touch()
        place.take()
        assert place.row("CRM").status == "CANCELLED"
        assert not (place.path / "CRM.cancel").exists()


def test_a_directory_with_the_longest_of_names_goes(place: Place) -> None:
    (place.path / f"{'A' * 248}.cancel").mkdir()
    place.take()

    assert place.listing() == []


def test_a_cancel_file_that_cannot_be_removed_keeps_no_other_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink

    def unlink(path: str, **options: int) -> None:
        if str(path).startswith("STUCK"):
            raise PermissionError(1, "Operation not permitted", path)
        real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    for number in range(10):
        cancel(place, f"STUCK{number}")
        place.drop(f"J{number}")
        cancel(place, f"J{number}")

    assert place.take() == 10
    assert set(place.statuses().values()) == {"CANCELLED"}


def test_a_cancel_file_while_the_database_is_busy_is_not_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*args: object) -> None:
        raise StoreBusy("database is locked")

    place.drop("CRM")
    place.take()
    file = cancel(place, "CRM")
    with monkeypatch.context() as patch:
        patch.setattr(intake_module, "ask_end", busy)
        with pytest.raises(intake_module.IntakeDelayed):
            place.take()
    assert file.exists()
    place.take()

    assert place.statuses() == {"CRM": "CANCELLED"}


def test_a_shell_may_cancel_with_touch(place: Place) -> None:
    place.drop("CRM")
    place.take()
    output_of(bash("touch CRM.cancel", place.path))
    place.take()

    assert place.statuses() == {"CRM": "CANCELLED"}


def test_a_cancel_beside_an_intake_that_is_taking_the_job_is_not_lost(place: Place) -> None:
    place.drop("CRM")
    file = cancel(place, "CRM")
    other = Intake(place.settings, place.spool, HOST)

    def see() -> None:
        other.take_files([file.name], certain=True)
        close_database()

    seeing = threading.Thread(target=see)
    with SpoolDirectory(place.path) as spool, spool.locked():  # the first one has claimed CRM, its row is to come
        claimed = claim(spool, "CRM", certain=True, shared=False)
        assert claimed is not None
        seeing.start()
        seeing.join(0.2)
        assert file.exists()
        place.intake._record(spool, [claimed])
    seeing.join(5)

    assert place.statuses() == {"CRM": "CANCELLED"}
    assert not file.exists()


def test_a_cancel_file_waits_for_a_job_file_that_a_crash_left_claimed(place: Place) -> None:
    place.drop("CRM")
    with SpoolDirectory(place.path) as spool, spool.locked():
        claim(spool, "CRM", certain=True, shared=False)
    file = cancel(place, "CRM")
    place.intake.take_files([file.name], certain=True)
    assert file.exists()
    place.take()

    assert place.statuses() == {"CRM": "CANCELLED"}
    assert not file.exists()


def test_many_cancel_files_share_one_turn_in_the_spool(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    real = SpoolDirectory.locked

    def locked(spool: SpoolDirectory) -> AbstractContextManager[None]:
        turns.append(spool)
        return real(spool)

    names = [f"J{number}" for number in range(50)]
    for name in names:
        place.drop(name)
    place.take()
    files = [cancel(place, name).name for name in names]
    monkeypatch.setattr(SpoolDirectory, "locked", locked)
    place.intake.take_files(files, certain=True)

    assert set(place.statuses().values()) == {"CANCELLED"}
    assert len(turns) == 1
