"""What `doctor` finds of jobs that are stuck, and of lights that nobody will change."""

from __future__ import annotations

import os
import time

import pytest

from orchestrator.doctor import jobs as checks
from tests.doctor.patient import LONG_AGO, Patient


def age(patient: Patient, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be old: its change by us is of now, whatever its times say."""
    then = time.time() - 1000
    os.utime(patient.house.spool / name, (then, then))
    monkeypatch.setattr(checks, "LOST", -1.0)


def test_a_light_without_a_job_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    (patient.house.spool / "ALONE.trafficlight").touch()
    patient.is_well()

    age(patient, "ALONE.trafficlight", monkeypatch)
    found = patient.found("WARN", "spool default", "no job belongs to ALONE.trafficlight")
    assert f"> {patient.house.spool}/ALONE.trafficlight" in found["advice"]


def test_lights_that_have_a_job_or_a_verdict_are_not_told(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    patient.take("QUEUED")
    patient.take("ENDED")
    patient.change("QUEUE", f"status = 'FINISHED', ended_at = '{LONG_AGO}'", "name = 'ENDED'")
    patient.house.drop("DROPPED", "command=true")
    private = patient.house.spool / ".orchestrator"
    private.mkdir(0o700)
    for name in ("CLAIMED", "RED"):
        (patient.house.spool / f"{name}.trafficlight").touch()
    (private / "CLAIMED.0123456789abcdef").touch()
    (patient.house.spool / "RED.trafficlight").write_text("FAILED id=1\n")
    age(patient, "RED.trafficlight", monkeypatch)

    assert [each for each in patient.doctor() if "no job belongs" in each["found"]] == []


def test_a_light_that_is_released_meanwhile_is_not_told(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    (patient.house.spool / "ALONE.trafficlight").touch()
    age(patient, "ALONE.trafficlight", monkeypatch)
    monkeypatch.setattr("orchestrator.doctor.examine.red_lights", lambda _: [checks.Light("ALONE", 1, 1000.0)])

    patient.is_well()


def test_a_light_of_another_spool_or_host_does_not_count(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    patient.take("SAME")
    patient.change("QUEUE", "spool = 'night'")
    age(patient, "SAME.trafficlight", monkeypatch)

    patient.found("WARN", "spool default", "no job belongs to SAME.trafficlight")


def test_an_ended_job_whose_light_was_not_changed_for_long_fails(patient: Patient) -> None:
    job = patient.take("ENDED")
    patient.change("QUEUE", "status = 'FINISHED', ended_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
    patient.is_well()

    patient.change("QUEUE", f"ended_at = '{LONG_AGO}'")
    patient.found("FAIL", "jobs", "the light is not changed", f"job {job} (ENDED)")
    patient.change("QUEUE", "spool = 'gone'")
    assert "[spools.gone]" in patient.found("FAIL", "jobs", "spool gone: ended")["advice"]


def test_jobs_of_another_host_name_fail(patient: Patient) -> None:
    patient.take("FAR")
    patient.change("QUEUE", "host = 'elsewhere'")

    patient.found("FAIL", "jobs", "of host elsewhere, and this is ", "(FAR)")


def test_a_job_that_is_scheduled_for_long_is_a_warning(patient: Patient) -> None:
    job = patient.place("PLACED")
    patient.is_well()

    patient.long_ago()
    patient.found("WARN", "jobs", f"job {job} (PLACED) is SCHEDULED on local for")
    patient.change("QUEUE", "starter = 'x/1:2:3'")
    patient.found("WARN", "jobs", "and its start is being looked for")


def test_a_job_that_waits_though_there_is_room_is_a_warning(patient: Patient) -> None:
    job = patient.take("WAITS")
    patient.change("QUEUE", "command = 'true'")
    patient.is_well()

    patient.long_ago()
    patient.found("WARN", "jobs", "QUEUED for", "though local is UP and has FREE CPUs", f"job {job} (WAITS)")


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("ENGINES", "status = 'RUNNING', job_id = 1"),
        ("HEALTH", "draining = 1"),
        ("HEALTH", "state = 'DOWN'"),
        ("HEALTH", "since = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"),
        ("QUEUE", "engines = 'other'"),
        ("QUEUE", "command = 'unknown'"),
        ("QUEUE", "status = 'HELD'"),
    ],
)
def test_a_job_that_has_reason_to_wait_is_not_told(patient: Patient, table: str, values: str) -> None:
    patient.take("WAITS")
    patient.change("QUEUE", "command = 'true'")
    patient.long_ago()
    patient.change(table, values)

    assert [each for each in patient.doctor() if "though local is UP" in each["found"]] == []


def test_a_cpu_that_was_in_use_a_moment_ago_is_no_room(patient: Patient) -> None:
    patient.take("WAITS")
    patient.change("QUEUE", "command = 'true'")
    patient.long_ago()
    for cpu in ("CPU1", "CPU2"):
        patient.house.query(
            "INSERT INTO EVENTS(at, engine, cpu, move) VALUES(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'local', ?, 'x')",
            cpu,
        )

    patient.is_well()


def test_a_job_waits_elsewhere_than_where_it_failed(patient: Patient) -> None:
    patient.house.add_settings('[engines.second]\nkind = "command"\ncpus = 1')
    patient.take("RETRIED")
    patient.house.query("INSERT INTO ENGINES(engine, cpu) VALUES('second', 'CPU1')")
    patient.change("QUEUE", "command = 'true', tried = 'local'")
    patient.long_ago()
    patient.is_well()  # nothing is known of `second` yet

    patient.change("QUEUE", "tried = 'local,second'")
    patient.found("WARN", "jobs", "though local is UP")


@pytest.mark.parametrize(("state", "level"), [("DOWN", "WARN"), ("UNKNOWN", "WARN")])
def test_a_job_that_runs_on_an_engine_that_is_not_up_is_a_warning(patient: Patient, state: str, level: str) -> None:
    patient.place("RUNS")
    patient.change("QUEUE", "status = 'RUNNING', execution = '1.1'")
    patient.is_well()

    patient.change("HEALTH", f"state = '{state}'")
    patient.found(level, "jobs", f"RUNNING on local, which is {state}", "(RUNS)")


def test_a_job_that_runs_on_an_engine_that_the_settings_no_longer_have_fails(patient: Patient) -> None:
    patient.place("RUNS")
    patient.change("QUEUE", "status = 'RUNNING', execution = '1.1', engine = 'gone'")

    assert "[engines.gone]" in patient.found("FAIL", "jobs", "which the settings no longer have")["advice"]


def test_a_job_that_was_asked_to_end_long_ago_is_a_warning(patient: Patient) -> None:
    patient.place("ENDS")
    patient.change("QUEUE", "status = 'RUNNING', execution = '1.1', ending = 'CANCELLED'")
    patient.is_well()

    patient.long_ago()
    patient.found("WARN", "jobs", "asked to end", "(ENDS)")
