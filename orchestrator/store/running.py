"""What start and check write: the intent to start, the execution, progress, and the end of an attempt."""

from __future__ import annotations

from typing import Any

from peewee import fn

from orchestrator.clock import tick, utc_now
from orchestrator.job import Job
from orchestrator.state import ENDED, CpuStatus, JobStatus
from orchestrator.store.database import writing
from orchestrator.store.models import IS_ACTIVE, IS_KEPT, IS_PLACED, Engines, Events, Queue, tuples_of
from orchestrator.store.moves import CpuRow, move_cpu, move_job, record_event
from orchestrator.store.statement import ALL_COLUMNS, Statement, jobs_of, param


def jobs_on(engine: str) -> list[Job]:
    """Give the jobs that hold a CPU of this engine: SCHEDULED, RUNNING, or ended while nobody could ask it."""
    return jobs_of(_HOLDING.rows(engine=engine))


def newest_job() -> int:
    """Give the id of the job that came last; 0 where none ever came."""
    [(newest,)] = _NEWEST.rows()
    return int(newest or 0)


def intend_start(job: Job, starter: str, mark: str | None) -> Job | None:
    """Record, before the engine is asked, that `starter` starts this job (P4).

    `mark` is what the engine needs later to tell whether the start arrived. Gives the job with its intent; None
    where another one starts it, or it no longer waits for that.
    """
    intent: dict[str, Any] = {
        "starter": starter,
        "start_mark": mark,
        "starting_tick": tick(),
        "attempts": job.attempts + 1,
    }
    with writing():
        changed = _INTEND.change(
            id=job.id, scheduled=JobStatus.SCHEDULED.value,
            was_engine=job.engine, was_cpu=job.cpu, was_attempts=job.attempts, **intent,
        )  # fmt: skip
    return job.but(**intent) if changed else None


def started(job: Job, execution: str, *, at: str | None = None, tick_: str | None = None) -> bool:
    """Record that the engine runs the job as `execution`; False where the row is no longer of this attempt.

    `at` and `tick_` tell since when, by the clocks of clock.py; now, where they are not given.
    """
    with writing():
        moved = move_job(
            job.id, JobStatus.SCHEDULED, JobStatus.RUNNING, _EXECUTION + execution, still=_attempt(job),
            execution=execution, started_at=at or utc_now(), started_tick=tick_ or tick(), reason=None,
            engine=job.engine, cpu=job.cpu,
        )  # fmt: skip
        if moved:
            move_cpu(cpu_of(job), CpuStatus.JUST_INSERTED, CpuStatus.RUNNING, was=job.id, holds=job.id)
        return moved


def adopt(job: Job, execution: str) -> bool:
    """Record which execution a job started whose caller was told an end before anybody knew; it still holds its CPU."""
    with writing():
        changed = _ADOPT.change(id=job.id, was_attempts=job.attempts, execution=execution)
        if changed:
            record_event(_ADOPTING, _EXECUTION + execution, job_id=job.id, engine=job.engine, cpu=job.cpu)
        return bool(changed)


def executions_of_others(job: Job) -> set[str]:
    """Give the executions that other jobs have got on a job's engine since it was placed there, ended ones too.

    Not those from before: an engine that was installed anew counts from 1 again.
    """
    placed = Events.select(fn.MAX(Events.id)).where(Events.job_id == job.id, Events.move == _PLACING)
    rows = Events.select(Events.why).where(
        Events.id > placed,
        Events.engine == job.engine,
        Events.move.in_((_STARTING, _ADOPTING)),
        Events.job_id != job.id,
    )
    held = {other.execution for other in jobs_on(job.engine or "") if other.id != job.id}
    return {why.removeprefix(_EXECUTION) for (why,) in tuples_of(rows)} | {each for each in held if each}


def not_started(job: Job, why: str) -> bool:
    """Put a job back into the queue whose start surely did not reach the engine; its CPU is free again.

    A job that was asked to end meanwhile ends instead. False where the row is no longer of this attempt.
    """
    still = _attempt(job)
    with writing():
        ending, ending_why = _asked_ending(job.id)
        if ending is None:
            moved = move_job(job.id, JobStatus.SCHEDULED, JobStatus.QUEUED, why, still=still, **_UNPLACED, reason=why)
        else:
            moved = move_job(job.id, JobStatus.SCHEDULED, ending, ending_why, still=still, reason=ending_why)
        if moved:
            move_cpu(cpu_of(job), CpuStatus.JUST_INSERTED, CpuStatus.FREE, was=job.id, holds=None)
        return moved


def progress(job: Job, rows_masked: int | None, rows_total: int | None) -> None:
    """Record how far a running job is, in rows."""
    with writing():
        _PROGRESS.change(
            id=job.id, running=JobStatus.RUNNING.value, was_attempts=job.attempts, was_execution=job.execution,
            masked=rows_masked, total=rows_total,
        )  # fmt: skip


def doubt(job: Job, is_unsure: bool) -> None:
    """Record since when nothing can be concluded of an execution, or that something can again.

    In the row, since whoever looks next may be another process: cron's look once.
    """
    with writing():
        _DOUBT.change(
            id=job.id, was_attempts=job.attempts, was_execution=job.execution, since=tick() if is_unsure else None
        )


def ended(
    job: Job,
    to: JobStatus,
    reason: str | None,
    *,
    exit_status: int | None = None,
    detail: str | None = None,
    rows_masked: int | None = None,
    rows_total: int | None = None,
    may_retry: bool = True,
    cpu_is_free: bool = True,
) -> bool:
    """Record the end of a job's attempt, and free its CPU, in one transaction.

    False where it had ended, or the row is of another attempt than `job` by now.

    A FAILED attempt with retries left goes back to QUEUED instead, where it `may_retry`. `cpu_is_free=False` keeps
    the CPU: the execution may still run on an engine that does not answer.
    """
    columns: dict[str, object] = {
        "reason": reason, "exit": exit_status, "detail": detail,
        "rows_masked": rows_masked, "rows_total": rows_total,
    }  # fmt: skip
    with writing():
        again = may_retry and to is JobStatus.FAILED and job.retries > 0 and _asked_ending(job.id)[0] is None
        was, still = JobStatus(job.status), _attempt(job)
        if again:
            tried = ",".join(sorted(job.tried_engines | {job.engine or ""}))
            columns |= {**_UNPLACED, "tried": tried, "retries": job.retries - 1}
            moved = move_job(job.id, was, JobStatus.QUEUED, f"to be tried again: {reason}", still=still, **columns)
        else:
            columns["kept_since"] = None if cpu_is_free else utc_now()
            moved = move_job(job.id, was, to, reason, still=still, **columns)
        if moved and cpu_is_free:
            _free(job, to is JobStatus.FINISHED)
        return moved


def free_cpu(job: Job, why: str) -> bool:
    """Free the CPU of a job that had ended before its engine could be asked; False where it holds none."""
    with writing():
        kept = bool(_FREE_KEPT.change(id=job.id))
        freed = _free(job, succeeded=False) or kept
        if freed:
            record_event("CPU free", why, job_id=job.id, engine=job.engine, cpu=job.cpu)
        return freed


def is_over(job: Job) -> bool:
    """Tell whether a job that `jobs_on` gave has ended, and only its CPU is still held."""
    return job.status in ENDED


def ending_of(job: Job) -> JobStatus:
    """Tell how a job ends that was asked to."""
    return _read_ending(job.ending)


def cpu_of(job: Job) -> CpuRow:
    """Give the row of ENGINES that a placed job holds."""
    return job.engine or "", job.cpu or ""


def _attempt(job: Job) -> dict[str, object]:
    """Give what tells the attempt of a job that was read from all others: a status may come back, this does not."""
    return {name: getattr(job, name) for name in ("attempts", "starter", "execution", "engine", "cpu")}


def _asked_ending(job_id: int) -> tuple[JobStatus | None, str | None]:
    [(ending, why)] = _ASKED_ENDING.rows(id=job_id)
    return (None if ending is None else _read_ending(ending)), why


def _read_ending(ending: str | None) -> JobStatus:
    # Any other word is an operator's own, from the sqlite3 shell. Never FINISHED.
    return JobStatus.TIMEOUT if ending == JobStatus.TIMEOUT else JobStatus.CANCELLED


def _free(job: Job, succeeded: bool) -> bool:
    outcome = CpuStatus.SUCCEEDED if succeeded else CpuStatus.FAILED
    cpu = cpu_of(job)
    if move_cpu(cpu, CpuStatus.RUNNING, outcome, was=job.id, holds=job.id):
        return move_cpu(cpu, outcome, CpuStatus.FREE, was=job.id, holds=None)
    return move_cpu(cpu, CpuStatus.JUST_INSERTED, CpuStatus.FREE, was=job.id, holds=None)


_UNPLACED: dict[str, object] = {
    "engine": None, "cpu": None, "execution": None, "starter": None, "start_mark": None,
    "starting_tick": None, "started_at": None, "started_tick": None, "unsure_tick": None,
    "rows_masked": None, "rows_total": None,
}  # fmt: skip


_NEWEST = Statement(lambda: Queue.select(fn.MAX(Queue.id)))
_EXECUTION = "execution "
_PLACING = f"{JobStatus.SCHEDULING} -> {JobStatus.SCHEDULED}"
_STARTING = f"{JobStatus.SCHEDULED} -> {JobStatus.RUNNING}"
_ADOPTING = "start found"
_INTENT = ("starter", "start_mark", "starting_tick", "attempts")
_INTEND = Statement(
    lambda: Queue.update({name: param(name) for name in _INTENT}).where(
        Queue.id == param("id"),
        Queue.status == param("scheduled"),
        Queue.starter.is_null(),
        Queue.engine == param("was_engine"),
        Queue.cpu == param("was_cpu"),
        Queue.attempts == param("was_attempts"),
    )
)


def _holding() -> Any:
    engine = param("engine")
    told = Engines.select(Engines.job_id).where(Engines.engine == engine, Engines.job_id.is_null(False))
    # Also where somebody deleted the CPU's row.
    placed = Queue.select(Queue.id).where(Queue.engine == engine, IS_ACTIVE, IS_PLACED)
    kept = Queue.select(Queue.id).where(Queue.engine == engine, IS_KEPT)
    return Queue.select(*ALL_COLUMNS).where(Queue.id.in_(told | placed | kept)).order_by(Queue.id)


_HOLDING = Statement(_holding)
_DOUBT = Statement(
    lambda: Queue.update({"unsure_tick": param("since")}).where(
        Queue.id == param("id"),
        Queue.attempts == param("was_attempts"),
        Queue.execution == param("was_execution"),
    )
)
_ADOPT = Statement(
    lambda: Queue.update({"execution": param("execution")}).where(
        Queue.id == param("id"), IS_KEPT, Queue.execution.is_null(), Queue.attempts == param("was_attempts")
    )
)
_FREE_KEPT = Statement(lambda: Queue.update(kept_since=None).where(Queue.id == param("id"), IS_KEPT))
_ASKED_ENDING = Statement(lambda: Queue.select(Queue.ending, Queue.ending_why).where(Queue.id == param("id")))
_PROGRESS = Statement(
    lambda: Queue.update({"rows_masked": param("masked"), "rows_total": param("total")}).where(
        Queue.id == param("id"),
        Queue.status == param("running"),
        Queue.attempts == param("was_attempts"),
        Queue.execution == param("was_execution"),
    )
)
