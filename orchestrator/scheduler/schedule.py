"""The step around the choice: reads QUEUE and ENGINES, places, ends what no engine can ever run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from orchestrator.engines.base import Lookup
from orchestrator.job import Job
from orchestrator.process import ProcessIdentity
from orchestrator.scheduler.choose import EngineView, choose
from orchestrator.state import EngineState, JobStatus
from orchestrator.store.engines import draining_engines, free_deserted, stray_cpus
from orchestrator.store.placing import (
    Capacity,
    Intent,
    capacities,
    fail_waiting,
    has_waiting_jobs,
    jobs_to_cancel_with_caller,
    place,
    waiting_jobs,
)
from orchestrator.store.taking import ask_end

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class KnownEngine:
    """What the schedule step is told of an engine by whoever talks to it."""

    state: EngineState
    lookup: Callable[[Job], Lookup]
    ask: Callable[[], None]  # ask it anew which jobs it has
    queueing: bool = False
    intent: Intent | None = None  # None: a start is meant only once the engine was asked


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """What the schedule step did."""

    engines: frozenset[str] = frozenset()  # those that got a job
    failed: bool = False  # a job ended: no engine knows it


def schedule(engines: Mapping[str, KnownEngine]) -> Scheduled:
    """Place what can be placed.

    `engines` are those of the settings: a row of ENGINES that belongs to none of them gets nothing.
    """
    if not has_waiting_jobs():
        return Scheduled()
    rows = capacities()
    draining = draining_engines()
    views = []
    for name, engine in engines.items():
        capacity = rows.get(name, Capacity())
        views.append(
            EngineView(
                name=name,
                state=engine.state,
                draining=name in draining,
                cpus=capacity.cpus,
                jobs=capacity.jobs,
                free=tuple(capacity.free),
                lookup=engine.lookup,
                queueing=engine.queueing,
            )
        )
    blocked: set[str] = set()
    choice = choose(waiting_jobs(sum(len(view.free) for view in views) + 1, blocked), views, blocked)
    for job, reason in choice.unknown:
        if fail_waiting(job, reason):
            log.warning("job %d (%s): %s", job.id, job.name, reason)
    if choice.placings:
        place(choice.placings, {name: engine.intent for name, engine in engines.items() if engine.intent is not None})
    for name in choice.ask:
        engines[name].ask()
    return Scheduled(engines=frozenset(engine for _, (engine, _) in choice.placings), failed=bool(choice.unknown))


def tidy(told: set[tuple[str, str, str]]) -> bool:
    """Put right what was done to QUEUE and ENGINES by hand; whether a CPU is FREE again.

    What only an operator can put right is logged once: `told` holds what was, and is added to.
    """
    deserted = free_deserted()
    for engine, cpu, job_id in deserted:
        log.warning("%s %s: FREE again: job %s, which held it, has no row in QUEUE", engine, cpu, job_id)
    for stray in stray_cpus():
        if stray not in told:
            told.add(stray)
            log.warning("%s %s: status %r is none that a CPU can have: it is never used", *stray)
    return bool(deserted)


def cancel_for_gone_callers(host: str) -> Iterable[Job]:
    """Ask to cancel the jobs whose caller wanted that when it goes, and is gone; those jobs."""
    cancelled = []
    for job in jobs_to_cancel_with_caller(host):
        if not _lives(job.caller):
            if ask_end(job.id, JobStatus.CANCELLED, "its caller is gone"):
                log.info("job %d (%s): its caller is gone: cancelled", job.id, job.name)
                cancelled.append(job)
    return cancelled


def _lives(caller: str | None) -> bool:
    """Tell whether a proven caller still runs; what names no process is none."""
    try:
        return caller is not None and ProcessIdentity.parse(caller).is_alive()
    except ValueError:
        return False
