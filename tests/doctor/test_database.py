"""What `doctor` finds of the database, which it only ever reads."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator.doctor import database as checks
from orchestrator.store import looking as store_looking
from orchestrator.store.looking import looking
from orchestrator.store.models import Engines
from tests.doctor.patient import Patient

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(patient: Patient) -> Iterator[int]:
    """Let a stranger hold the database; its pid."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(patient.house.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    yield holder.pid
    holder.communicate()


def test_a_database_that_is_missing_where_a_program_has_run_fails_and_none_is_made(patient: Patient) -> None:
    patient.house.database.unlink()
    patient.found("FAIL", "database", "there is none, though a program has run here")
    assert not patient.house.database.exists()

    (patient.run_dir / "schedule.beat").unlink()
    patient.found("WARN", "database", "there is none")
    assert not patient.house.database.exists()


def test_a_directory_that_is_missing_fails(patient: Patient) -> None:
    settings = patient.house.settings.read_text()
    patient.house.settings.write_text('database = "sqlite:///gone/o.db"\n' + settings)

    patient.found("FAIL", "database", "the directory is missing")


def test_a_newer_schema_fails_and_an_older_one_is_a_warning(patient: Patient) -> None:
    patient.change("SCHEMA_VERSION", "version = 99")
    patient.found("FAIL", "database", "has schema version 99, this orchestrator knows up to 1")

    patient.change("SCHEMA_VERSION", "version = 0")
    patient.found("WARN", "database", "schema version 0, this orchestrator has 1")


def test_an_empty_file_is_a_warning_and_stays_empty(patient: Patient) -> None:
    patient.house.database.write_bytes(b"")

    patient.found("WARN", "database", "schema version 0")
    assert patient.house.database.read_bytes() == b""


def test_a_file_that_is_no_database_is_one_line(patient: Patient) -> None:
    patient.house.database.write_bytes(b"no database at all, but long enough to be looked at" * 100)

    assert "put the backup back" in patient.found("FAIL", "database", "file is not a database")["advice"]
    assert [each["subject"] for each in patient.doctor()].count("database") == 1


def test_a_damaged_database_fails(patient: Patient) -> None:
    content = bytearray(patient.house.database.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    patient.house.database.write_bytes(content)

    patient.found("FAIL", "database")


def test_a_database_that_nobody_else_may_read_is_told_as_locked(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_looking, "BUSY_TIMEOUT", 0.1)
    with contextlib.closing(sqlite3.connect(patient.house.database, isolation_level=None)) as stranger:
        stranger.execute("PRAGMA journal_mode = delete")
        (patient.house.folder / "orchestrator.db-wal").touch()  # as if it were in use
        (patient.house.folder / "orchestrator.db-shm").touch()
        stranger.execute("BEGIN EXCLUSIVE")
        found = patient.found("FAIL", "database", "database is locked")

    assert found["advice"].startswith("fuser -v ")


def test_whoever_holds_the_database_for_long_is_named(patient: Patient, held: int) -> None:
    found = patient.found("FAIL", "database", f"pid {held} (python", "holds it locked")

    assert "end what that process does" in found["advice"]
    patient.found("OK", "database", "whole")


def test_whoever_holds_the_database_for_a_moment_is_not(
    patient: Patient, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders = iter([held, held])
    monkeypatch.setattr(checks, "writer_of", lambda _: next(holders, None))

    patient.is_well()


def test_a_database_that_everybody_may_write_fails(patient: Patient) -> None:
    patient.house.database.chmod(0o666)

    patient.found("FAIL", "database", "everybody may write it")


def test_a_large_wal_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LARGE_WAL", 1)
    with contextlib.closing(sqlite3.connect(patient.house.database)) as other, other:
        other.execute("UPDATE ENGINES SET cpu = 'CPU5' WHERE cpu = 'CPU1'")
        other.commit()
        patient.found("WARN", "database", "somebody has been reading for long")


def test_a_database_on_a_file_system_of_other_hosts_fails(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_shared", lambda _: True)

    patient.found("FAIL", "database", "SQLite's locks are not to be relied on")


def test_one_that_is_too_large_to_be_looked_through_is_a_warning(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "check_integrity", lambda _: None)

    patient.found("WARN", "database", "too large to be looked through in 10 s")


def test_a_look_through_ends_when_its_time_is_over(patient: Patient) -> None:
    patient.house.query("CREATE TABLE big AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n "
                        "WHERE i < 20000) SELECT i, hex(randomblob(50)) AS t FROM n")  # fmt: skip
    with looking(f"sqlite:///{patient.house.database}"):
        assert store_looking.check_integrity(-1) is None
        assert store_looking.check_integrity(10) == []


def test_nothing_can_be_written_while_it_is_looked_into(patient: Patient) -> None:
    from orchestrator.errors import StoreError

    with pytest.raises(StoreError, match="readonly"), looking(f"sqlite:///{patient.house.database}"):
        Engines.insert(engine="e", cpu="c").execute()
