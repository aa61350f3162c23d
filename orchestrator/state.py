"""States of QUEUE, ENGINES and engines, and the legal moves between them. Imports nothing of ours.

Every change of a state is one conditional UPDATE that names the state it expects (see `store`).
"""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a row of QUEUE stands."""

    QUEUED = "QUEUED"  # waits for a CPU
    HELD = "HELD"  # set aside by an operator; waits for `orchestrator release`
    SCHEDULING = "SCHEDULING"  # a scheduler is placing it; seen only inside the placing transaction
    SCHEDULED = "SCHEDULED"  # has a CPU; not known to run yet
    RUNNING = "RUNNING"  # the engine gave an execution
    FINISHED = "FINISHED"  # the engine proved success: the only green
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    REJECTED = "REJECTED"  # the job file was refused; nothing ever ran


class CpuStatus(StrEnum):
    """Where a row of ENGINES (one CPU of one engine) stands."""

    FREE = "FREE"
    JUST_INSERTED = "JUST_INSERTED"  # a job was placed on it
    RUNNING = "RUNNING"  # its execution runs on the engine
    SUCCEEDED = "SUCCEEDED"  # its execution ended well; becomes FREE in the same transaction
    FAILED = "FAILED"  # its execution did not; becomes FREE in the same transaction


class EngineState(StrEnum):
    """What is known of an engine. Only UP gets jobs."""

    UP = "UP"
    DOWN = "DOWN"
    DRAINING = "DRAINING"  # an operator lets it run empty
    UNKNOWN = "UNKNOWN"  # not asked yet, or not in the settings


ENDED = frozenset({JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMEOUT, JobStatus.REJECTED})
ACTIVE = frozenset(JobStatus) - ENDED
WAITING = frozenset({JobStatus.QUEUED, JobStatus.HELD})
PLACED = frozenset({JobStatus.SCHEDULED, JobStatus.RUNNING})

JOB_MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.SCHEDULING, JobStatus.HELD, JobStatus.CANCELLED, JobStatus.FAILED}),
    JobStatus.HELD: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.SCHEDULING: frozenset({JobStatus.SCHEDULED, JobStatus.QUEUED}),
    JobStatus.SCHEDULED: frozenset(
        {JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMEOUT}
    ),
    JobStatus.RUNNING: frozenset(
        {JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMEOUT, JobStatus.QUEUED}
    ),
}

CPU_MOVES: dict[CpuStatus, frozenset[CpuStatus]] = {
    CpuStatus.FREE: frozenset({CpuStatus.JUST_INSERTED}),
    CpuStatus.JUST_INSERTED: frozenset({CpuStatus.RUNNING, CpuStatus.FREE, CpuStatus.FAILED}),
    CpuStatus.RUNNING: frozenset({CpuStatus.SUCCEEDED, CpuStatus.FAILED, CpuStatus.FREE}),
    CpuStatus.SUCCEEDED: frozenset({CpuStatus.FREE}),
    CpuStatus.FAILED: frozenset({CpuStatus.FREE}),
}
