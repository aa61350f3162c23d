"""Opening the database: its pragmas, its schema version, its transactions. Only here is it known to be SQLite."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from peewee import DatabaseError, InterfaceError, OperationalError, SqliteDatabase

from orchestrator.errors import SchemaTooNew, StoreError
from orchestrator.store.models import TABLES, Schema, database

# What a caller of the store may meet and should simply try again a little later: locked, full, read-only.
StoreBusy = OperationalError

BUSY_TIMEOUT = 5.0  # seconds that one statement waits for a lock of somebody else


def open_database(url: str, busy_timeout: float = BUSY_TIMEOUT) -> None:
    """Open (and create, or migrate) the database that all functions of the store use from now on.

    `url` as in the settings; `busy_timeout` in seconds. Raises StoreError, or SchemaTooNew where a newer
    orchestrator wrote it.
    """
    path = url.removeprefix("sqlite:///")
    opened = SqliteDatabase(
        path,
        pragmas={"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1},
        timeout=busy_timeout,  # sqlite3_busy_timeout
        lock_type="IMMEDIATE",  # a transaction that reads and then writes must not meet BUSY_SNAPSHOT
    )
    database.initialize(opened)
    try:
        opened.connect()
        migrate()
    except (DatabaseError, InterfaceError) as exc:
        opened.close()
        raise StoreError(f"{path}: the database cannot be used: {exc}") from exc


def close_database() -> None:
    """Close this thread's connection."""
    database.close()


# SQLite lets one writer in and makes the others sleep and try again; in turn is faster, and fair.
_turn = threading.RLock()


@contextmanager
def writing() -> Iterator[None]:
    """One durable transaction: all of it or nothing. Inside another it is part of that one.

    Raises StoreBusy where the database cannot take it now.
    """
    if database.in_transaction():
        yield
        return
    try:
        with _turn, database.atomic():
            yield
    except OperationalError as exc:
        # SQLite has rolled back by itself (a full disk, say), and peewee tells that it could not: tell the cause.
        cause: BaseException | None = exc
        while cause is not None and "no transaction is active" in str(cause):
            cause = cause.__context__
        if cause is None or cause is exc:
            raise
        raise OperationalError(str(cause)) from None


@contextmanager
def apart() -> Iterator[None]:
    """A part of a transaction that is undone by itself where it fails, if the exception does not leave `writing`."""
    if database.in_transaction():
        with database.savepoint():
            yield
    else:
        yield


def after_commit(act: Callable[[], None]) -> None:
    """Do something, such as waking whoever is to read it, once what is being written is durable; else at once."""
    if database.in_transaction():
        database.after_commit(act)
    else:
        act()


def data_version() -> int:
    """A number that changes whenever another connection changed the database."""
    return int(database.execute_sql("PRAGMA data_version").fetchone()[0])


def _create() -> None:
    database.create_tables(TABLES)


# MIGRATIONS[n] takes a database from version n to n + 1. Only ever appended to.
MIGRATIONS: Sequence[Callable[[], None]] = (_create,)


def migrate(migrations: Sequence[Callable[[], None]] = MIGRATIONS) -> None:
    """Bring the tables to the version of this program; each step and the record of it in one transaction.

    Raises SchemaTooNew where the database is ahead of the program.
    """
    if schema_version() == len(migrations):
        return
    with writing():  # a second daemon that starts meanwhile waits here, and then finds nothing to do
        database.create_tables([Schema])
        found = schema_version()
        if found > len(migrations):
            raise SchemaTooNew(
                f"the database has schema version {found}, this orchestrator knows up to {len(migrations)}: "
                "install the newer orchestrator, or point `database` at another file"
            )
        if found == 0:
            Schema.insert(version=0).execute()
        for version in range(found, len(migrations)):
            migrations[version]()
            Schema.update(version=version + 1).execute()


def schema_version() -> int:
    """Give the version of the tables; 0 where there are none."""
    if not database.table_exists(Schema):
        return 0
    row = Schema.select(Schema.version).tuples().first()
    return int(row[0]) if row else 0
