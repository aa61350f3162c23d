"""What `doctor` finds of the settings, their secrets and commands, the client, disks and heartbeats."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.doctor.conftest import room
from tests.doctor.patient import Patient, make_executable


@pytest.mark.parametrize("mode", [0o646, 0o664])
def test_settings_that_others_may_write_fail(patient: Patient, mode: int) -> None:
    patient.house.settings.chmod(mode)

    assert patient.found("FAIL", "settings", "others than its owner may write")["advice"].startswith("chmod go-w ")


def test_a_folder_in_which_everybody_may_replace_the_settings_fails(patient: Patient) -> None:
    patient.house.folder.chmod(0o777)

    patient.found("FAIL", "settings", "everybody may replace the settings")


def test_a_missing_folder_is_told_and_not_made(patient: Patient) -> None:
    (patient.house.folder / "log").rmdir()

    patient.found("WARN", "settings", "log_dir", "is missing")
    assert not (patient.house.folder / "log").exists()


def test_a_run_folder_that_everybody_may_write_fails(patient: Patient) -> None:
    patient.run_dir.chmod(0o777)

    patient.found("FAIL", "settings", "run_dir: everybody may write")


def test_an_unknown_key_of_an_engine_is_told_of_that_engine_only(patient: Patient) -> None:
    patient.house.add_settings('[engines.wrong]\nkind = "command"\ncpu = 2')

    patient.found("FAIL", "engine wrong", "engines.wrong.cpu: unknown key")
    patient.found("OK", "engine local")


@pytest.mark.parametrize("mode", [0o644, 0o602])
def test_a_password_file_that_others_may_read_or_write_fails(patient: Patient, mode: int) -> None:
    secret = patient.house.folder / "secret"
    secret.write_text("admin")
    secret.chmod(mode)
    patient.house.add_settings(
        f'[engines.e]\nkind = "delphix"\nurl = "http://127.0.0.1:1/"\nusername = "u"\npassword = "file:{secret}"'
    )

    found = patient.found("FAIL", "engine e", "everybody may read or write", f"(mode {mode:o})")
    assert found["advice"] == f"chmod 600 {secret}"
    secret.chmod(0o600)
    assert [each for each in patient.doctor() if "everybody" in each["found"]] == []


def test_a_password_file_that_is_missing_fails(patient: Patient) -> None:
    patient.house.add_settings(
        '[engines.e]\nkind = "delphix"\nurl = "http://127.0.0.1:1/"\nusername = "u"\npassword = "file:/none"'
    )

    patient.found("FAIL", "engine e", "password: /none: No such file")


def test_commands_that_cannot_be_run_fail(patient: Patient) -> None:
    folder = patient.house.folder
    (folder / "plain").write_text("no program")
    make_executable(folder / "open").chmod(0o777)
    for name in ("missing", "plain", "open"):
        patient.house.add_settings(f'[commands.{name}]\nrun = ["{folder}/{name}"]')

    patient.found("FAIL", "command missing", "there is none")
    patient.found("FAIL", "command plain", "cannot run it")
    patient.found("FAIL", "command open", "everybody may change it")
    patient.found("OK", "commands", "true, sh")


def test_a_client_that_is_not_in_the_path_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert "ln -s " in patient.found("WARN", "client", "not in the PATH")["advice"]


def test_a_client_of_another_version_is_a_warning(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    make_executable(tmp_path / "old" / "orchestrator.bash")
    monkeypatch.setenv("PATH", f"{tmp_path}/old")

    patient.found("WARN", "client", "another version")


@pytest.mark.parametrize(
    ("level", "share", "size"),
    [("WARN", 0.09, 2**40), ("FAIL", 0.009, 2**40), ("FAIL", 0.5, 90 * 2**20), ("OK", 0.11, 2**40)],
)
def test_disks_that_are_nearly_full_are_told(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, level: str, share: float, size: int
) -> None:
    room(monkeypatch, share, size)

    patient.found(level, "disk", "database, log, run, spool default", f"{share:.0%}")


@pytest.mark.parametrize(
    ("file", "subject", "age", "level"),
    [
        ("spool/.heartbeat", "spool default", 181, "FAIL"),
        ("spool/.heartbeat", "spool default", 100, "WARN"),
        ("spool/.heartbeat", "spool default", -60, "WARN"),
        ("run/schedule.beat", "schedule", 151, "FAIL"),
        ("run/schedule.beat", "schedule", 100, "WARN"),
        ("run/schedule.beat", "schedule", 70, "OK"),
    ],
)
def test_heartbeats_that_are_late_are_told(patient: Patient, file: str, subject: str, age: float, level: str) -> None:
    then = time.time() - age
    os.utime(patient.house.folder / file, (then, then))

    patient.found(level, subject, "the heartbeat is")


@pytest.mark.parametrize(
    ("file", "subject"), [("spool/.heartbeat", "spool default"), ("run/schedule.beat", "schedule")]
)
def test_heartbeats_that_are_missing_fail(patient: Patient, file: str, subject: str) -> None:
    (patient.house.folder / file).unlink()

    patient.found("FAIL", subject, "there is no ")
