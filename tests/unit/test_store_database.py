"""The database file: made, checked, shared and left alone where a newer program wrote it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import SchemaTooNew, StoreError
from orchestrator.state import CpuStatus
from orchestrator.store import database as store_database
from orchestrator.store.database import close_database, data_version, migrate, open_database, writing
from orchestrator.store.models import Engines, database
from orchestrator.store.placing import capacities
from orchestrator.store.views import count_by_status

from .make import queued

OPEN_AND_TAKE = """
import sys, uuid
from orchestrator.job import JobRequest
from orchestrator.store.database import close_database, open_database
from orchestrator.store.taking import Arrival, take
sys.stdin.readline()
open_database(sys.argv[1])
take([Arrival(host="h", spool="s", name=sys.argv[2], claim=uuid.uuid4().hex, request=JobRequest(job="J"))])
close_database()
"""


def pragma(name: str) -> object:
    return database.execute_sql(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.usefixtures("store")
def test_what_is_committed_survives_a_loss_of_power() -> None:
    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL


def test_a_new_file_is_made_with_all_tables(store: Path) -> None:
    with closing(sqlite3.connect(store)) as raw:
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert {"QUEUE", "ENGINES", "EVENTS", "HEALTH", "SCHEMA_VERSION"} <= tables
        assert raw.execute("SELECT version FROM SCHEMA_VERSION").fetchall() == [(1,)]


def test_a_file_is_opened_again_with_what_is_in_it(store: Path) -> None:
    queued()
    close_database()
    open_database(f"sqlite:///{store}")
    assert count_by_status() == {"QUEUED": 1}


def test_a_file_of_a_newer_program_is_refused_and_left_alone(store: Path) -> None:
    close_database()
    with closing(sqlite3.connect(store)) as raw, raw:
        raw.execute("UPDATE SCHEMA_VERSION SET version = 99")
    with pytest.raises(SchemaTooNew, match="schema version 99, this orchestrator knows up to 1"):
        open_database(f"sqlite:///{store}")
    close_database()
    with closing(sqlite3.connect(store)) as raw:
        assert raw.execute("SELECT version FROM SCHEMA_VERSION").fetchall() == [(99,)]


@pytest.mark.usefixtures("store")
def test_an_older_file_is_migrated_step_by_step_each_once() -> None:
    steps: list[int] = []
    migrations = (*store_database.MIGRATIONS, lambda: steps.append(2), lambda: steps.append(3))
    migrate(migrations)
    migrate(migrations)
    assert steps == [2, 3]
    assert database.execute_sql("SELECT version FROM SCHEMA_VERSION").fetchall() == [(3,)]


@pytest.mark.usefixtures("store")
def test_a_migration_that_fails_leaves_nothing_behind() -> None:
    def broken() -> None:
        database.execute_sql("CREATE TABLE HALF(x)")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        migrate((*store_database.MIGRATIONS, broken))
    assert not database.table_exists("HALF")
    assert database.execute_sql("SELECT version FROM SCHEMA_VERSION").fetchall() == [(1,)]


@pytest.mark.parametrize("content", [b"this is no database, whatever its name says" * 40, b"SQLite format 3\x00" * 100])
def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "orchestrator.db"
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"orchestrator\.db: the database cannot be used: ") as told:
        open_database(f"sqlite:///{file}")
    assert "\n" not in str(told.value)
    assert file.read_bytes() == content


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        open_database(f"sqlite:///{tmp_path}/nowhere/o.db")


def test_many_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orchestrator.db"
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_TAKE, url, f"N{number}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(6)
    ]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write(b"\n")
        opener.stdin.flush()
    told = [opener.communicate()[1].decode() for opener in openers]
    assert told == [""] * 6
    open_database(url)
    assert count_by_status() == {"QUEUED": 6}
    close_database()


def test_capacity_is_added_by_one_insert_from_the_sqlite3_shell(store: Path) -> None:
    with closing(sqlite3.connect(store)) as raw, raw:
        raw.execute("INSERT INTO ENGINES(engine, cpu) VALUES('engine1','CPU1')")
    row = Engines.get(Engines.engine == "engine1")
    assert (row.cpu, row.status, row.job_id) == ("CPU1", CpuStatus.FREE, None)
    assert capacities()["engine1"].free == ["CPU1"]


def test_a_cpu_cannot_be_inserted_twice(store: Path) -> None:
    with closing(sqlite3.connect(store)) as raw, raw:
        raw.execute("INSERT INTO ENGINES(engine, cpu) VALUES('engine1','CPU1')")
        with pytest.raises(sqlite3.IntegrityError):
            raw.execute("INSERT INTO ENGINES(engine, cpu) VALUES('engine1','CPU1')")


def test_a_change_by_somebody_else_is_noticed_and_our_own_is_not(store: Path) -> None:
    before = data_version()
    queued()
    assert data_version() == before
    with closing(sqlite3.connect(store)) as raw, raw:
        raw.execute("INSERT INTO ENGINES(engine, cpu) VALUES('engine1','CPU1')")
    assert data_version() != before


def test_a_database_that_somebody_holds_locked_is_busy_not_broken(store: Path) -> None:
    close_database()
    open_database(f"sqlite:///{store}", busy_timeout=0.05)
    with closing(sqlite3.connect(store, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(store_database.StoreBusy, match="locked"):
            queued()
        raw.execute("ROLLBACK")
    assert queued().status == "QUEUED"


@pytest.mark.usefixtures("store")
def test_a_transaction_inside_another_is_part_of_it() -> None:
    def crash() -> None:
        with writing():
            queued()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert count_by_status() == {}
