"""What `doctor` finds of a spool: modes, owners, file system, and whether events arrive."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from orchestrator.doctor import events
from orchestrator.doctor import spool as spools
from orchestrator.spool import filesystem
from orchestrator.spool.observe import SpoolObserver
from tests.doctor.patient import Patient, is_root

SPOOL = "spool default"
needs_root = pytest.mark.skipif(not is_root(), reason="only root can give files away")


@pytest.mark.parametrize("mode", [0o777, 0o2777])
def test_a_spool_in_which_everybody_may_remove_a_light_fails(patient: Patient, mode: int) -> None:
    patient.house.spool.chmod(mode)

    patient.found("FAIL", SPOOL, "everybody may remove a light", f"{mode:04o}")
    patient.house.spool.chmod(mode | 0o3000)
    patient.is_well()


def test_a_spool_that_only_its_owner_may_write_is_a_warning(patient: Patient) -> None:
    patient.house.spool.chmod(0o755)

    patient.found("WARN", SPOOL, "can submit a job (mode 0755)")


@needs_root
def test_a_spool_without_setgid_is_a_warning_unless_root_serves_it(patient: Patient) -> None:
    patient.house.spool.chmod(0o770)
    patient.is_well()

    for file in (patient.run_dir / "schedule.beat", patient.house.spool, patient.house.database):
        os.chown(file, 1, 1)
    patient.house.spool.chmod(0o770)
    assert patient.found("WARN", SPOOL, "their callers' own group")["advice"].startswith("chmod g+s ")


@needs_root
def test_a_spool_and_a_database_of_another_user_than_the_programs_are_warnings(patient: Patient) -> None:
    os.chown(patient.run_dir / "schedule.beat", 1, 1)

    patient.found("WARN", SPOOL, "belongs to root, and the programs run as")
    patient.found("WARN", "database", "belongs to root, and the programs run as")


def test_a_private_folder_that_others_may_write_fails(patient: Patient) -> None:
    (patient.house.spool / ".orchestrator").mkdir()
    (patient.house.spool / ".orchestrator").chmod(0o770)

    patient.found("FAIL", SPOOL, ".orchestrator: belongs to", "mode 770")


@needs_root
def test_a_private_folder_of_another_user_fails(patient: Patient) -> None:
    private = patient.house.spool / ".orchestrator"
    private.mkdir(0o700)
    patient.is_well()
    os.chown(private, 12345, 1)

    assert "chown -R root" in patient.found("FAIL", SPOOL, "belongs to uid 12345")["advice"]


def test_a_folder_for_refused_files_that_is_a_link_fails(patient: Patient) -> None:
    (patient.house.spool / "rejected").symlink_to("/tmp")

    patient.found("FAIL", SPOOL, "rejected: is no directory of its own")


@needs_root
def test_job_files_that_the_programs_cannot_read_are_a_warning(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "_umask", lambda: 0o027)
    for file in (patient.run_dir / "schedule.beat", patient.house.spool, patient.house.database):
        os.chown(file, 1, 1)
    patient.house.spool.chmod(0o2770)
    patient.house.drop("CLOSED", "job=MASK_CRM")
    job = patient.house.spool / "CLOSED.job"
    job.chmod(0o640)
    os.chown(job, 0, 1)
    patient.found("OK", SPOOL, "mode 2770")

    job.chmod(0o600)
    assert patient.found("WARN", SPOOL, "cannot read CLOSED.job")["advice"].startswith("umask 027")


@needs_root
def test_a_umask_that_closes_job_files_to_the_programs_is_a_warning(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(patient.run_dir / "schedule.beat", 1, 1)
    monkeypatch.setattr(spools, "_umask", lambda: 0o077)

    patient.found("WARN", SPOOL, "umask 077")


def test_the_umask_is_read_without_being_changed() -> None:
    before = os.umask(0o022)
    os.umask(before)

    assert spools._umask() == before


def test_a_spool_that_is_missing_fails_and_all_else_is_told(patient: Patient) -> None:
    patient.house.add_settings(f'[spools.night]\npath = "{patient.house.folder}/night"')

    found = patient.found("FAIL", "spool night", "there is none")
    assert found["advice"].endswith(f"install -d -m 2770 {patient.house.folder}/night")
    patient.found("OK", SPOOL, "seen after")


def test_a_spool_that_is_a_file_fails(patient: Patient) -> None:
    shutil.rmtree(patient.house.spool)
    patient.house.spool.touch()

    patient.found("FAIL", SPOOL, "is no directory")


def test_a_spool_on_a_file_system_of_other_hosts_is_polled_and_told(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nfs(path: Path, *_: object) -> str:
        return "nfs4" if path == patient.house.spool else "ext4"

    monkeypatch.setattr(filesystem, "file_system_of", nfs)
    monkeypatch.setattr(spools, "file_system_of", nfs)

    patient.found("WARN", SPOOL, "is on nfs4", "it is polled")
    patient.found("OK", SPOOL, "seen after", "(polling)")
    settings = patient.house.settings.read_text()
    patient.house.settings.write_text(settings.replace('path = "spool"', 'path = "spool"\nobserver = "inotify"'))
    patient.found("FAIL", SPOOL, "inotify does not see")


def test_events_that_do_not_arrive_fail_and_the_file_is_gone(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events._Probe, "tell", lambda *_: None)
    monkeypatch.setattr(events, "AGAIN", 0.1)
    monkeypatch.setattr(events.check_events, "__defaults__", (0.3,))

    patient.found("FAIL", SPOOL, "no event came of a file that was dropped (inotify)")
    assert [path.name for path in patient.house.spool.iterdir()] == [".heartbeat"]


def test_inotify_that_cannot_watch_fails(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: SpoolObserver) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(SpoolObserver, "start", refuse)

    assert "sysctl" in patient.found("FAIL", SPOOL, "inotify cannot watch it: Too many open files")["advice"]


def test_a_spool_that_cannot_be_written_now_fails(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(events, "_drop", full)

    patient.found("FAIL", SPOOL, "no file can be dropped: No space left on device")


def test_limits_of_inotify_that_are_nearly_reached_are_a_warning(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.found("OK", "inotify", "max_user_instances 100000")
    (events._LIMITS / "max_user_instances").write_text("0\n")

    patient.found("WARN", "inotify", "nearly reached a limit: max_user_instances 0")


def test_instances_and_watches_in_use_are_counted(tmp_path: Path) -> None:
    before = events._used(os.geteuid())
    probe = events._Probe(tmp_path, "x")
    observer = SpoolObserver(probe)
    observer.start()
    try:
        instances, watches = events._used(os.geteuid())
    finally:
        observer.stop()
        observer.join(1)

    assert instances > 0
    assert (instances, watches) >= (before[0], before[1])
