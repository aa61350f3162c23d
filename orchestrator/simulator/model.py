"""What a simulated masking engine knows of: environments, jobs, executions and their events.

Records and arithmetic only: no clock, no lock, no network. Times are seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

COUNTING_PART = 0.1  # of a run, during which a real engine still counts the rows and says -1
UNKNOWN_ROWS = -1


class Outcome(StrEnum):
    """How a job's executions end."""

    SUCCEED = "succeed"  # SUCCEEDED, no events
    FAIL = "fail"  # FAILED half way, with a JOB_ABORTED event
    WARN = "warn"  # WARNING, with an UNMASKED_DATA event
    LEAK = "leak"  # SUCCEEDED, with an UNMASKED_DATA event: what older engines say
    HANG = "hang"  # RUNNING until it is cancelled
    ODD = "odd"  # a status that no client has heard of


class Status(StrEnum):
    """What an execution is shown as."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    WARNING = "WARNING"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    PAUSED_BY_MARTIANS = "PAUSED_BY_MARTIANS"

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after it."""
        return self not in (Status.QUEUED, Status.RUNNING)


END_STATUS = {
    Outcome.SUCCEED: Status.SUCCEEDED,
    Outcome.FAIL: Status.FAILED,
    Outcome.WARN: Status.WARNING,
    Outcome.LEAK: Status.SUCCEEDED,
    Outcome.ODD: Status.PAUSED_BY_MARTIANS,
}

# Which part of its rows, and so of its time, an execution gets through.
_REACH = {Outcome.FAIL: 0.5, Outcome.HANG: 0.5}


@dataclass(frozen=True, slots=True)
class Application:
    """A group of environments."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Environment:
    """A group of jobs."""

    id: int
    name: str
    application: Application


@dataclass(frozen=True, slots=True)
class Job:
    """A masking job: what is run, for how long, and how that ends."""

    id: int
    name: str
    environment: Environment
    seconds: float  # of a full run
    rows: int
    max_memory: int  # MB
    outcome: Outcome
    multi_tenant: bool
    on_the_fly: bool


@dataclass(frozen=True, slots=True)
class Connectors:
    """The connectors that a start named; None where it named none."""

    target: int | None = None
    source: int | None = None
    type: str | None = None


@dataclass(slots=True)
class Execution:
    """One run of a job. It keeps the job as it was at the start, so a later change does not touch it."""

    id: int
    job: Job
    connectors: Connectors
    submitted: float
    status: Status = Status.QUEUED
    started: float | None = None
    ended: float | None = None

    def ends(self) -> float | None:
        """When it ends by itself; None where it never does, or has not started."""
        if self.started is None or self.job.outcome is Outcome.HANG:
            return None
        return self.started + self.job.seconds * _REACH.get(self.job.outcome, 1.0)

    def rows(self, now: float) -> tuple[int, int]:
        """Rows masked and rows in all as seen at `now`; in all is -1 while they are being counted."""
        if self.started is None:
            return 0, UNKNOWN_ROWS
        reach = _REACH.get(self.job.outcome, 1.0)
        spent = (now if self.ended is None else self.ended) - self.started
        part = spent / self.job.seconds if self.job.seconds > 0 else 1.0
        if self.status not in (Status.RUNNING, Status.CANCELLED):
            part = reach  # it got there; the quotient would lose a row to rounding
        part = max(0.0, min(part, reach))
        total = UNKNOWN_ROWS if part < COUNTING_PART else self.job.rows
        return int(self.job.rows * part), total


@dataclass(frozen=True, slots=True)
class Event:
    """Something that an execution reports when it ends."""

    id: int
    execution: Execution
    type: str
    severity: str
    cause: str
    count: int
    time: float


def event_of(execution: Execution, event_id: int, time: float) -> Event | None:
    """The event that an execution which ended by itself at `time` reports; None for one without."""
    match execution.job.outcome:
        case Outcome.FAIL:
            return Event(event_id, execution, "JOB_ABORTED", "CRITICAL", "UNHANDLED_EXCEPTION", 1, time)
        case Outcome.WARN | Outcome.LEAK:
            count = max(1, execution.job.rows // 1000)
            cause = "PATTERN_MATCH_FAILURE"
            return Event(event_id, execution, "UNMASKED_DATA", "WARNING", cause, count, time)
        case _:
            return None
