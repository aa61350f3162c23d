"""The one door for changes of state: a conditional UPDATE that names the state it expects, and its row in EVENTS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from orchestrator.clock import utc_now
from orchestrator.job import Job
from orchestrator.state import CPU_MOVES, ENDED, JOB_MOVES, CpuStatus, JobStatus
from orchestrator.store.models import Engines, Events, Queue, dicts_of
from orchestrator.store.statement import Statement, param

CpuRow = tuple[str, str]  # engine, cpu


def move_job(
    job_id: int,
    expected: JobStatus,
    to: JobStatus,
    why: str | None = None,
    *,
    still: Mapping[str, object] | None = None,
    **columns: object,
) -> bool:
    """Move a job from `expected` to `to`, setting `columns` with it; inside the caller's transaction.

    False, and nothing changed, where it is not in `expected`, or not all columns of `still` have those values
    (somebody else was first).
    """
    if to not in JOB_MOVES[expected]:
        raise AssertionError(f"no legal move: {expected} -> {to}")
    columns["status"] = to.value
    if to in ENDED:
        columns["ended_at"] = utc_now()
    still = still or {}
    statement = _move_job(tuple(sorted(columns)), tuple((name, still[name] is None) for name in sorted(still)))
    were = {f"was_{name}": value for name, value in still.items()}
    moved = statement.change(moved_id=job_id, expected=expected.value, **were, **columns)
    if moved:
        engine, cpu = columns.get("engine"), columns.get("cpu")
        record_event(f"{expected} -> {to}", why, job_id=job_id, engine=engine, cpu=cpu)
    return bool(moved)


@cache
def _move_job(columns: tuple[str, ...], still: tuple[tuple[str, bool], ...]) -> Statement:
    def is_still(name: str, was_null: bool) -> Any:
        column = getattr(Queue, name)
        return column.is_null() if was_null else column == param(f"was_{name}")

    return Statement(
        lambda: Queue.update({name: param(name) for name in columns}).where(
            Queue.id == param("moved_id"), Queue.status == param("expected"), *(is_still(*each) for each in still)
        )
    )


def move_cpu(cpu: CpuRow, expected: CpuStatus, to: CpuStatus, *, was: int | None, holds: int | None) -> bool:
    """Move a CPU from `expected` to `to` where it holds the job `was`; from then on it holds the job `holds`.

    No row in EVENTS of its own: the job's row, written in the same transaction, names engine and CPU.
    """
    if to not in CPU_MOVES[expected]:
        raise AssertionError(f"no legal move: {expected} -> {to}")
    engine, name = cpu
    statement = _MOVE_EMPTY_CPU if was is None else _MOVE_HELD_CPU
    return bool(statement.change(engine=engine, cpu=name, expected=expected.value, to=to.value, was=was, holds=holds))


def _move_cpu(held: Any) -> Any:
    return Engines.update({"status": param("to"), "job_id": param("holds")}).where(
        Engines.engine == param("engine"), Engines.cpu == param("cpu"), Engines.status == param("expected"), held
    )


_MOVE_EMPTY_CPU = Statement(lambda: _move_cpu(Engines.job_id.is_null()))
_MOVE_HELD_CPU = Statement(lambda: _move_cpu(Engines.job_id == param("was")))


def record_event(
    move: str,
    why: str | None = None,
    *,
    job_id: int | None = None,
    engine: object = None,
    cpu: object = None,
) -> None:
    """Add a row to EVENTS."""
    _RECORD_EVENT.change(at=utc_now(), job_id=job_id, engine=engine, cpu=cpu, move=move, why=why)


_EVENT_COLUMNS = ("at", "job_id", "engine", "cpu", "move", "why")
_RECORD_EVENT = Statement(lambda: Events.insert({name: param(name) for name in _EVENT_COLUMNS}))


def jobs_where(*conditions: Any) -> list[Job]:
    """Give the rows of QUEUE that meet all conditions, oldest first."""
    return [Job(**row) for row in dicts_of(Queue.select().where(*conditions).order_by(Queue.id))]
