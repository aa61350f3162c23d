"""`orchestrator recover --dry-run` foretells what a start mends, and mends nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.process import identify
from orchestrator.simulator import Simulator
from tests.doctor.patient import LONG_AGO, Patient
from tests.house import House


@pytest.fixture
def private(patient: Patient) -> Path:
    """Give the spool's private folder."""
    folder = patient.house.spool / ".orchestrator"
    folder.mkdir(0o700)
    return folder


def test_without_dry_run_it_says_that_a_start_does_it(patient: Patient) -> None:
    status, told = patient.command("recover")

    assert status == 64
    assert "a start of the programs recovers by itself" in told


def test_where_all_is_well_there_is_nothing_to_mend(patient: Patient) -> None:
    assert patient.command("recover", "--dry-run") == (0, "nothing to mend\n")
    assert patient.recover() == []


def test_one_line_says_what_it_is_which_and_what_will_be_done(patient: Patient) -> None:
    patient.house.drop("WAITS", "command=true")

    told = f"job file: {patient.house.spool}/WAITS.job: is taken into QUEUE, or refused\n"
    assert patient.command("recover", "--dry-run") == (0, told)


def test_claims_job_files_and_cancel_files_are_listed_and_kept(patient: Patient, private: Path) -> None:
    patient.take("TAKEN", claim="fedcba9876543210")
    (private / "LEFT.0123456789abcdef").write_text("command=true\n")
    (private / "TAKEN.fedcba9876543210").write_text("command=true\n")
    (private / "lock").touch()
    patient.house.drop("WAITS", "command=true")
    (patient.house.spool / "TAKEN.cancel").touch()
    before = patient.tree()

    assert patient.recover() == [
        ("claim", f"{private}/LEFT.0123456789abcdef", "becomes a row of QUEUE, job LEFT, or is refused"),
        ("claim", f"{private}/TAKEN.fedcba9876543210", "goes: its row is there"),
        (
            "cancel file",
            f"{patient.house.spool}/TAKEN.cancel",
            "its job is asked to end, where it has not, and it goes",
        ),
        ("job file", f"{patient.house.spool}/WAITS.job", "is taken into QUEUE, or refused"),
    ]
    assert patient.tree() == before


def test_lights_that_are_half_done_are_listed(patient: Patient, private: Path) -> None:
    green, red = patient.take("GREEN"), patient.take("RED")
    patient.change("QUEUE", f"status = 'FINISHED', ended_at = '{LONG_AGO}'", f"id = {green}")
    patient.change("QUEUE", f"status = 'FAILED', ended_at = '{LONG_AGO}'", f"id = {red}")
    for file in (f"{green}.green", f"{red}.red", "99.green"):
        (private / file).touch()
    found = patient.recover()

    assert [(what, which.rpartition("/")[2], then.partition(" ")[0]) for what, which, then in found[:3]] == [
        ("half-done light", f"{green}.green", "goes"),
        ("half-done light", f"{red}.red", "is"),
        ("half-done light", "99.green", "is"),
    ]
    assert found[3:] == [
        ("light", f"job {green} (GREEN)", "is removed"),
        ("light", f"job {red} (RED)", "says FAILED, and its caller is signalled"),
    ]


@pytest.mark.parametrize(
    ("column", "value", "then"),
    [
        ("host", "elsewhere", "is left alone: it is of host elsewhere"),
        ("spool", "gone", "is left alone: the settings have no spool gone"),
    ],
)
def test_lights_that_nobody_will_change_say_so(patient: Patient, column: str, value: str, then: str) -> None:
    job = patient.take("ENDED")
    patient.change("QUEUE", f"status = 'FAILED', ended_at = '{LONG_AGO}', {column} = '{value}'")

    assert patient.recover() == [("light", f"job {job} (ENDED)", then)]


def test_a_start_of_a_dead_process_is_asked_of_the_engine(patient: Patient) -> None:
    job = patient.place("PLACED")
    assert patient.recover() == [("start", f"job {job} (PLACED)", "is started on local CPU1")]

    patient.change("QUEUE", f"starter = '{patient.host}/1:2:no-boot'")
    [(_, _, then)] = patient.recover()
    assert then == "its starter is dead: local is asked whether the start arrived; it is not simply sent again"


def test_a_start_of_a_living_process_is_left_to_it(patient: Patient) -> None:
    patient.place("PLACED")
    patient.change("QUEUE", f"starter = '{patient.host}/{identify(os.getpid())}'")

    assert [then for _, _, then in patient.recover()] == [f"pid {os.getpid()} is starting it: left to that"]


@pytest.mark.parametrize(
    ("values", "then"),
    [
        ("execution = '7'", "execution 7 on local is watched on"),
        ("execution = '7', ending = 'TIMEOUT'", "execution 7 is cancelled on local, and watched until it has ended"),
        ("execution = '7', engine = 'gone'", "stays RUNNING until the settings have engine gone again"),
    ],
)
def test_executions_that_run_are_watched_on(patient: Patient, values: str, then: str) -> None:
    job = patient.place("RUNS")
    patient.change("QUEUE", f"status = 'RUNNING', {values}")

    assert patient.recover() == [("execution", f"job {job} (RUNS)", then)]


def test_jobs_of_callers_that_are_gone_are_cancelled(patient: Patient) -> None:
    job = patient.take("TIED")
    patient.change("QUEUE", "on_caller_exit = 'cancel', caller = '1:2:no-boot'")

    assert patient.recover() == [("caller", f"job {job} (TIED)", "is gone: the job is cancelled")]


def test_cpus_that_are_held_by_nobody_or_were_never_made_are_listed(patient: Patient) -> None:
    patient.house.query("UPDATE ENGINES SET status = 'RUNNING', job_id = 77 WHERE cpu = 'CPU2'")
    patient.house.add_settings('[engines.second]\nkind = "command"\ncpus = 3')

    assert patient.recover() == [
        ("CPU", "local CPU2", "becomes FREE: its job 77 has no row"),
        ("CPU", "second", "gets CPU1 to CPU3"),
    ]


def test_a_cpu_that_is_kept_for_what_may_still_run_is_listed(patient: Patient) -> None:
    job = patient.place("KEPT")
    patient.change(
        "QUEUE",
        f"status = 'FAILED', ended_at = '{LONG_AGO}', released_at = '{LONG_AGO}', kept_since = '{LONG_AGO}'",
    )

    then = "local CPU1 is freed once local shows that nothing of it runs"
    assert patient.recover() == [("CPU", f"job {job} (KEPT)", then)]


def test_tables_that_are_missing_or_old_are_made(patient: Patient) -> None:
    patient.change("SCHEMA_VERSION", "version = 0")
    patient.house.database.rename(patient.house.folder / "aside")
    (patient.house.folder / "log").rmdir()

    assert [(what, then) for what, _, then in patient.recover()] == [
        ("directory", "is made"),
        ("database", "its tables are made; look again after that"),
    ]
    assert not patient.house.database.exists()


def test_a_database_of_a_newer_program_is_told(patient: Patient) -> None:
    patient.change("SCHEMA_VERSION", "version = 99")

    assert patient.command("recover", "--dry-run")[0] == 74


def test_a_folder_that_is_closed_to_us_is_no_empty_folder(
    patient: Patient, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir

    def closed(path: Path) -> list[str]:
        if path == private:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr("orchestrator.doctor.recover.os.listdir", closed)
    status, told = patient.command("recover", "--dry-run")

    assert status == 1
    assert f"unseen: {private}: Permission denied: what lies in it is not known" in told


def test_what_it_foretells_after_a_crash_comes_true_at_the_next_start(masking_house: House) -> None:
    with Simulator(seconds=0.8) as engine:
        masking_house.add_engine("engine1", engine.url)
        program = masking_house.start("up")
        masking_house.drop("RUNS", "job=MASK_CRM")
        row = masking_house.wait_for_status("RUNS", "RUNNING")
        masking_house.kill(program)
        masking_house.drop("LATER", "job=MASK_HR")
        told = masking_house.run("recover", "--dry-run").stdout
        before = masking_house.query("SELECT * FROM QUEUE")
        masking_house.start("up")

        assert told.splitlines() == [
            f"job file: {masking_house.spool}/LATER.job: is taken into QUEUE, or refused",
            f"execution: job {row['id']} (RUNS): execution {row['execution']} on engine1 is watched on",
        ]
        assert len(before) == 1
        assert masking_house.verdict("RUNS") is None
        assert masking_house.verdict("LATER") is None
        assert len(engine.executions()) == 2
