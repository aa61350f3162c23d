"""ENGINES and HEALTH: capacity, what is known of each engine, and what operators want of it."""

from __future__ import annotations

from peewee import JOIN, fn

from orchestrator.clock import utc_now
from orchestrator.errors import UsageError
from orchestrator.state import CpuStatus, EngineState
from orchestrator.store.database import writing
from orchestrator.store.models import IS_ACTIVE, IS_PLACED, Engines, Health, Queue, tuples_of
from orchestrator.store.moves import record_event
from orchestrator.store.statement import Statement


def seed_cpus(engine: str, count: int) -> bool:
    """Make CPU1..CPUcount where ENGINES has no row of this engine; False where it has: the table rules."""
    with writing():
        if Engines.select(Engines.id).where(Engines.engine == engine).exists():
            return False
        for number in range(1, count + 1):
            Engines.insert(engine=engine, cpu=f"CPU{number}").execute()
        return count > 0


def add_cpus(engine: str, count: int) -> list[str]:
    """Add `count` CPUs to an engine under the next free names; the names."""
    with writing():
        taken = {name for (name,) in tuples_of(Engines.select(Engines.cpu).where(Engines.engine == engine))}
        names: list[str] = []
        number = 0
        while len(names) < count:
            number += 1
            if f"CPU{number}" not in taken:
                names.append(f"CPU{number}")
                Engines.insert(engine=engine, cpu=names[-1]).execute()
                record_event("CPU added", engine=engine, cpu=names[-1])
        return names


def remove_cpu(engine: str, cpu: str) -> None:
    """Remove a FREE row. Raises UsageError where there is none, or it is in use."""
    with writing():
        row = Engines.get_or_none(Engines.engine == engine, Engines.cpu == cpu)
        if row is None:
            raise UsageError(f"there is no {cpu} of {engine}: see `orchestrator engine list`")
        gone = Engines.delete().where(Engines.id == row.id, Engines.status == CpuStatus.FREE.value).execute()
        if not gone:
            raise UsageError(
                f"{cpu} of {engine} is in use by job {row.job_id}: `orchestrator engine drain {engine}`, "
                "and try again when it is FREE"
            )
        record_event("CPU removed", engine=engine, cpu=cpu)


def placed_by_engine() -> dict[str, int]:
    """Count the jobs that were placed on each engine and have not ended."""
    return dict(_PLACED_BY_ENGINE.rows())


def free_deserted() -> list[tuple[str, str, int]]:
    """Free the CPUs whose job has no row in QUEUE (deleted by hand); engine, cpu and the job's id of each."""
    if not _DESERTED.rows():  # as a rule, and that needs no turn to write
        return []
    with writing():
        found = _DESERTED.rows()
        for engine, cpu, job_id in found:
            held = (Engines.engine == engine, Engines.cpu == cpu, Engines.job_id == job_id)
            Engines.update(status=CpuStatus.FREE.value, job_id=None).where(*held).execute()
            record_event("CPU free", "its job has no row in QUEUE", job_id=job_id, engine=engine, cpu=cpu)
    return found


def deserted_cpus() -> list[tuple[str, str, int]]:
    """Give the CPUs whose job has no row in QUEUE: engine, cpu and the job's id of each."""
    return _DESERTED.rows()


def stray_cpus() -> list[tuple[str, str, str]]:
    """Give the rows whose status is none of ours, so that they are never used: engine, cpu and status."""
    return _STRAY.rows()


def set_health(engine: str, kind: str, state: EngineState, reason: str | None) -> None:
    """Record what was found of an engine; a change is an event."""
    with writing():
        row = Health.get_or_none(Health.engine == engine)
        if row is None:
            Health.insert(engine=engine, kind=kind, state=state.value, reason=reason, since=utc_now()).execute()
        elif (row.kind, row.state, row.reason) == (kind, state.value, reason):
            return
        else:
            since = row.since if row.state == state.value else utc_now()
            Health.update(kind=kind, state=state.value, reason=reason, since=since).where(
                Health.engine == engine
            ).execute()
            if row.state == state.value:
                return
        record_event(f"engine {state}", reason, engine=engine)


def set_draining(engine: str, draining: bool) -> None:
    """Let an engine run empty, or let it have jobs again."""
    with writing():
        Health.insert(engine=engine, draining=draining).on_conflict(
            conflict_target=[Health.engine], update={Health.draining: draining}
        ).execute()
        record_event("engine drained" if draining else "engine resumed", engine=engine)


def draining_engines() -> set[str]:
    """Give the engines that an operator lets run empty."""
    return {name for (name,) in _DRAINING.rows()}


def engine_states() -> dict[str, tuple[EngineState, str | None]]:
    """Give each engine's state, and the reason for it where there is one."""
    return {
        row.engine: (EngineState.DRAINING if row.draining else EngineState(row.state), row.reason)
        for row in Health.select()
    }


_PLACED_BY_ENGINE = Statement(
    lambda: (
        Queue.select(Queue.engine, fn.COUNT(Queue.id))
        .where(IS_ACTIVE, IS_PLACED, Queue.engine.is_null(False))
        .group_by(Queue.engine)
    )
)
_DESERTED = Statement(
    lambda: (
        Engines.select(Engines.engine, Engines.cpu, Engines.job_id)
        .join(Queue, JOIN.LEFT_OUTER, on=(Queue.id == Engines.job_id))
        .where(Engines.job_id.is_null(False), Queue.id.is_null())
        .order_by(Engines.id)
    )
)
_STRAY = Statement(
    lambda: (
        Engines.select(Engines.engine, Engines.cpu, Engines.status)
        .where(Engines.status.not_in([status.value for status in CpuStatus]))
        .order_by(Engines.id)
    )
)
_DRAINING = Statement(lambda: Health.select(Health.engine).where(Health.draining))
