"""Opening the database: its pragmas, its schema version, its transactions. Only here is it known to be SQLite."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from peewee import DatabaseError, InterfaceError, OperationalError, SqliteDatabase

from orchestrator.errors import SchemaTooNew, StoreError
from orchestrator.store.models import TABLES, Schema, database

log = logging.getLogger(__name__)

# What a caller of the store may meet and should simply try again a little later: locked, full, read-only.
StoreBusy = OperationalError
# The same, where something is wrong with the file itself: malformed, or no database at all.
StoreBroken = DatabaseError


class DatabaseGone(StoreBusy):
    """The database's file is no longer where it was opened: nothing is written until it, or a whole one, is there."""


BUSY_TIMEOUT = 5.0  # seconds that one statement waits for a lock of somebody else


def open_database(url: str, busy_timeout: float = BUSY_TIMEOUT) -> None:
    """Open (and create, or migrate) the database that all functions of the store use from now on.

    `url` as in the settings; `busy_timeout` in seconds. Raises StoreError, or SchemaTooNew where a newer
    orchestrator wrote it.
    """
    path = str(file_of(url))
    opened = _File(
        path,
        pragmas={"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1},
        timeout=busy_timeout,  # sqlite3_busy_timeout
        lock_type="IMMEDIATE",  # a transaction that reads and then writes must not meet BUSY_SNAPSHOT
    )
    database.initialize(opened)
    try:
        with contextlib.suppress(OSError):  # SQLite tells better why it cannot be
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        opened.connect()
        migrate()
        opened.check_in_place()
    except (DatabaseError, InterfaceError) as exc:
        opened.close()
        raise StoreError(f"{path}: the database cannot be used: {exc}") from exc


def file_of(url: str) -> Path:
    """Give the file that a database of the settings is in."""
    return Path(url.removeprefix("sqlite:///"))


class _File(SqliteDatabase):
    """A database file that is not made by connecting to it: only `open_database` makes one.

    Who writes to a file that was removed writes for nobody, and SQLite does not mind; so it is looked at here.
    """

    _timeout: float
    _add_conn_hooks: Callable[[sqlite3.Connection], None]

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path, **options)
        self._path = path
        self._opened = threading.local()  # `file`: device and inode of what this thread's connection was found to be
        self._gone = False
        self._generation = 0  # goes up where another file is found: connections from before are to be closed

    def _connect(self) -> sqlite3.Connection:
        self._opened.file, self._opened.generation = None, self._generation
        uri = f"file:{quote_from_bytes(os.fsencode(self._path))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=self._timeout, isolation_level=None)
        try:
            self._add_conn_hooks(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def execute_sql(self, sql: Any, params: Any = None) -> Any:
        """Run a statement; never in a file that a thread has found to be replaced."""
        self._leave_replaced()
        return super().execute_sql(sql, params)  # type: ignore[no-untyped-call]

    def connection(self) -> sqlite3.Connection:
        """Give this thread's connection; never to a file that a thread has found to be replaced."""
        self._leave_replaced()
        found: sqlite3.Connection = super().connection()  # type: ignore[no-untyped-call]
        return found

    def _leave_replaced(self) -> None:
        if getattr(self._opened, "generation", self._generation) != self._generation and not self.in_transaction():
            self.close()

    def check_in_place(self) -> None:
        """See that this thread's connection is to the file that bears the path. Raises DatabaseGone.

        Where a whole database lies there instead (it was restored), the thread goes on with that one.
        """
        try:
            status = os.stat(self._path)
        except OSError as exc:
            self._gone = True
            raise DatabaseGone(
                f"{self._path}: the database was taken away under the running programs ({exc.strerror}): "
                "put it back; until then no job is taken, started or released"
            ) from exc
        here = (status.st_dev, status.st_ino)
        mine = getattr(self._opened, "file", None)
        if mine != here:
            empty = status.st_size == 0  # and is left so: to connect would make it a database
            if mine is not None and not empty and not self.in_transaction():
                self._generation += self._opened.generation == self._generation
                self.close()
            if empty or self.in_transaction() or not 0 < schema_version() <= len(MIGRATIONS):
                self._gone = True
                raise DatabaseGone(
                    f"{self._path}: another file is in the place of the database, and is none: "
                    "put the database back; until then no job is taken, started or released"
                )
            self._opened.file = here
        if self._gone:
            self._gone = False
            log.warning("%s: the database is there again: going on with it", self._path)


def check_in_place() -> None:
    """See that the database's file is where it was opened. Raises DatabaseGone, or another StoreBusy."""
    database.obj.check_in_place()


def close_database() -> None:
    """Close this thread's connection."""
    database.close()


# SQLite lets one writer in and makes the others sleep and try again; in turn is faster, and fair.
_turn = threading.RLock()


@contextmanager
def writing() -> Iterator[None]:
    """One durable transaction: all of it or nothing. Inside another it is part of that one.

    Raises StoreBusy where the database cannot take it now, or its file was taken away meanwhile.
    """
    if database.in_transaction():
        yield
        return
    check_in_place()
    with _transaction():
        yield
    check_in_place()  # else nobody would ever read what was written


@contextmanager
def _transaction() -> Iterator[None]:
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
    with _transaction():  # a second daemon that starts meanwhile waits here, and then finds nothing to do
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
