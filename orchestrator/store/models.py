"""The tables, as peewee models. Their names and columns are what operators see in the sqlite3 shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peewee import (
    SQL,
    AutoField,
    BooleanField,
    DatabaseProxy,
    FloatField,
    IntegerField,
    Model,
    TextField,
)

database = DatabaseProxy()


def dicts_of(query: Any) -> Iterator[dict[str, Any]]:
    """Run a query; its rows one by one. (peewee's stubs say that a query yields models, whatever was asked.)"""
    return iter(query.dicts().iterator())


def tuples_of(query: Any) -> Iterator[tuple[Any, ...]]:
    """Run a query; its rows one by one."""
    return iter(query.tuples().iterator())


class Table(Model):
    """Base of all tables: whichever database was opened last."""

    class Meta:
        """peewee's settings."""

        database = database
        legacy_table_names = False


class Queue(Table):
    """One row a job file that ever came. Active means `ended_at IS NULL`; its light is due until `released_at`."""

    id = AutoField()
    host = TextField()  # whose spool it came from
    spool = TextField()
    name = TextField()
    claim = TextField(unique=True, null=True)  # the token in the hidden name that its job file was claimed by (P1)
    status = TextField()
    job = TextField(null=True)
    environment = TextField(null=True)
    engines = TextField(default="")  # where it may run, comma separated; empty: anywhere
    command = TextField(null=True)
    shell = BooleanField(default=False)  # command is a shell line that policy allowed
    params = TextField(default="{}")  # JSON object
    source_connector = IntegerField(null=True)
    target_connector = IntegerField(null=True)
    demand = TextField(default="")  # job.demand_of: what decides where it can run
    priority = IntegerField(default=50)
    timeout = FloatField(null=True)  # seconds
    retries = IntegerField(default=0)  # still to be used
    on_caller_exit = TextField(default="keep")
    on_unknown = TextField(default="fail")
    on_warning = TextField(default="fail")
    owner = IntegerField(null=True)  # uid of the job file
    caller = TextField(null=True)  # proven identity of the process to signal, see process.py
    light = TextField(null=True)  # which light it was dropped with, see spool/light.py
    engine = TextField(null=True)  # where it was placed
    cpu = TextField(null=True)
    execution = TextField(null=True)  # the engine's id of the running attempt
    attempts = IntegerField(default=0)  # starts tried
    tried = TextField(default="")  # engines where an attempt failed, comma separated
    starter = TextField(null=True)  # who is starting it right now: the intent (P4)
    start_mark = TextField(null=True)  # what the engine had seen before the start
    starting_tick = TextField(null=True)
    ending = TextField(null=True)  # CANCELLED or TIMEOUT was asked for
    ending_why = TextField(null=True)
    ending_tick = TextField(null=True)
    submitted_at = TextField()
    started_at = TextField(null=True)
    started_tick = TextField(null=True)
    ended_at = TextField(null=True)
    kept_since = TextField(null=True)  # ended, but what it started may still run and need its CPU
    released_at = TextField(null=True)
    unsure_tick = TextField(null=True)  # since when its engine tells nothing of it that can be concluded from
    exit = IntegerField(null=True)
    reason = TextField(null=True)
    detail = TextField(null=True)  # for people: more lines of the light
    rows_masked = IntegerField(null=True)
    rows_total = IntegerField(null=True)

    class Meta:
        """peewee's settings."""

        table_name = "QUEUE"


# Conditions are spelled out, not bound: SQLite uses a partial index only where it can read the condition.
IS_ACTIVE = SQL('"ended_at" IS NULL')
IS_UNRELEASED = SQL('"ended_at" IS NOT NULL AND "released_at" IS NULL')
IS_TIED_TO_CALLER = SQL('"ended_at" IS NULL AND "on_caller_exit" = \'cancel\'')
IS_PLACED = SQL("\"status\" IN ('SCHEDULED', 'RUNNING')")
IS_KEPT = SQL('"kept_since" IS NOT NULL')
IS_QUEUED = SQL("\"status\" = 'QUEUED'")

Queue.add_index(Queue.index(Queue.host, Queue.spool, Queue.name, unique=True, name="queue_active").where(IS_ACTIVE))
# With ended_at in it, so that a count reads the index alone.
Queue.add_index(Queue.index(Queue.host, Queue.spool, Queue.owner, Queue.ended_at, name="queue_owner").where(IS_ACTIVE))
Queue.add_index(Queue.index(Queue.host, Queue.id, name="queue_unreleased").where(IS_UNRELEASED))
Queue.add_index(Queue.index(Queue.priority.desc(), Queue.id, name="queue_waiting").where(IS_QUEUED))
Queue.add_index(Queue.index(Queue.demand, Queue.priority.desc(), Queue.id, name="queue_demand").where(IS_QUEUED))
Queue.add_index(Queue.index(Queue.engine, name="queue_placed").where(IS_ACTIVE))
Queue.add_index(Queue.index(Queue.engine, name="queue_kept").where(IS_KEPT))
Queue.add_index(Queue.index(Queue.host, name="queue_caller").where(IS_TIED_TO_CALLER))
Queue.add_index(Queue.index(Queue.name, Queue.id, name="queue_name"))


class Engines(Table):
    """One row a CPU. `INSERT INTO ENGINES(engine, cpu) VALUES('engine1','CPU1')` is how capacity is added."""

    id = AutoField()
    engine = TextField()
    cpu = TextField()
    status = TextField(default="FREE", constraints=[SQL("DEFAULT 'FREE'")])
    job_id = IntegerField(null=True, index=True)

    class Meta:
        """peewee's settings."""

        table_name = "ENGINES"
        indexes = ((("engine", "cpu"), True),)


class Events(Table):
    """One row a transition, only ever added to: durations, history and the story of a job come from here."""

    id = AutoField()
    at = TextField()
    job_id = IntegerField(null=True, index=True)
    engine = TextField(null=True)
    cpu = TextField(null=True)
    move = TextField()  # such as QUEUED -> SCHEDULED
    why = TextField(null=True)

    class Meta:
        """peewee's settings."""

        table_name = "EVENTS"


class Health(Table):
    """One row an engine: what the daemons last found, and what an operator wants of it."""

    engine = TextField(primary_key=True)
    kind = TextField(null=True)
    state = TextField(default="UNKNOWN")
    reason = TextField(null=True)
    since = TextField(null=True)
    draining = BooleanField(default=False)

    class Meta:
        """peewee's settings."""

        table_name = "HEALTH"


class Schema(Table):
    """One row: which version of these tables the database has."""

    version = IntegerField()

    class Meta:
        """peewee's settings."""

        table_name = "SCHEMA_VERSION"


TABLES = (Queue, Engines, Events, Health)
