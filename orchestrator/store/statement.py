"""Statements that are written once as peewee queries and run many times.

peewee takes longer to write a statement than SQLite to run it: for what each job passes through, that is half the
time. So the text is written at the first use, with a place for each `param`, and then only filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from peewee import Value
from peewee import __exception_wrapper__ as _as_peewee_raises  # type: ignore[attr-defined]

from orchestrator.job import Job
from orchestrator.store.models import Queue, database


def param(name: str) -> Any:
    """Give a place in a query for the value called `name`."""
    return Value(_Param(name), converter=False)


class _Param:
    def __init__(self, name: str) -> None:
        self.name = name


class Statement:
    """One statement, given by a function that builds its query: the tables need not be open yet."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._sql = ""
        self._parameters: Callable[[dict[str, object]], Sequence[object]] = _none

    def rows(self, **values: object) -> list[tuple[Any, ...]]:
        """Run it with these values; all rows."""
        found: list[tuple[Any, ...]] = self._run(values).fetchall()
        return found

    def change(self, **values: object) -> int:
        """Run it with these values; how many rows it changed."""
        return int(self._run(values).rowcount)

    def insert(self, **values: object) -> int:
        """Run it with these values; the id of the row that it inserted."""
        return int(database.last_insert_id(self._run(values)))

    def _run(self, values: dict[str, object]) -> Any:
        if not self._sql:
            sql, places = self._build().sql()
            self._parameters = _filling(places)
            self._sql = sql  # last: other threads look at it
        # What peewee does around each takes longer than most of our statements.
        with _as_peewee_raises:
            return database.obj.connection().execute(self._sql, self._parameters(values))


def _none(values: dict[str, object]) -> Sequence[object]:
    return ()


def _filling(places: Sequence[Any]) -> Callable[[dict[str, object]], Sequence[object]]:
    """Give what puts values into the places of a statement; a place that is not a parameter keeps what it holds."""
    if len(places) > 1 and all(isinstance(place, _Param) for place in places):
        return itemgetter(*(place.name for place in places))  # as fast as can be
    return lambda values: [values[place.name] if isinstance(place, _Param) else place for place in places]


COLUMNS = tuple(Queue._meta.sorted_field_names)
ALL_COLUMNS = tuple(getattr(Queue, name) for name in COLUMNS)


def jobs_of(rows: list[tuple[Any, ...]]) -> list[Job]:
    """Give the jobs in rows of ALL_COLUMNS."""
    return [_job(row) for row in rows]


def _job(row: tuple[Any, ...]) -> Job:
    # Its own __init__ would set each field by itself, which takes four times as long.
    job = object.__new__(Job)
    job.__dict__.update(zip(COLUMNS, row, strict=True))
    return job
