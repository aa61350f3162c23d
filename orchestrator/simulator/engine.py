"""The clockwork of a simulated engine: what is queued, what runs and what has ended, at any instant.

Nothing happens in the background. Whoever asks first brings the state up to the clock (`advance`), and each
change is dated with the instant at which it was due, not with the instant at which somebody looked.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from orchestrator.simulator.model import (
    END_STATUS,
    Connectors,
    Event,
    Execution,
    Job,
    Status,
    event_of,
)

Clock = Callable[[], float]


class NotCancellable(Exception):  # noqa: N818 - named for what it tells
    """The execution has ended already, or is not in the status that the caller expected."""


class Engine:
    """Runs jobs that are not there, never more than `cpus` at once nor than `memory` MB of them.

    Every method may be called from any thread. Hold `lock` to make several calls see one instant.
    """

    def __init__(self, *, cpus: int, memory: int, first_execution: int, clock: Clock) -> None:
        self.cpus = cpus
        self.memory = memory  # MB
        self.clock = clock
        self.lock = threading.RLock()
        self._next_id = first_execution
        self._next_event = first_execution
        self._clear()

    def _clear(self) -> None:
        self._executions: dict[int, Execution] = {}
        self._queue: deque[Execution] = deque()
        self._running = 0
        self._memory_used = 0
        self._due: list[tuple[float, int]] = []
        self._events: list[Event] = []
        self._event_of: dict[int, Event] = {}
        # Sorted execution ids by (job, status); None stands for any.
        self._ids: dict[tuple[int | None, Status | None], list[int]] = defaultdict(list)

    def clear(self) -> None:
        """Forget all executions and events. Their ids are not used again."""
        with self.lock:
            self._clear()

    def advance(self) -> float:
        """Bring the state up to the clock; the instant it now shows."""
        with self.lock:
            now = self.clock()
            self._advance(now)
            return now

    def submit(self, job: Job, connectors: Connectors) -> Execution:
        """Start `job`, or queue it where there is no room; the new execution."""
        with self.lock:
            now = self.advance()
            execution = Execution(self._next_id, job, connectors, now)
            self._next_id += 1
            self._executions[execution.id] = execution
            self._ids[None, None].append(execution.id)
            self._ids[job.id, None].append(execution.id)
            self._file(execution)
            self._queue.append(execution)
            self._start_queued(now)
            self._advance(now)
            return execution

    def cancel(self, execution_id: int, expected: str | None = None) -> Execution:
        """End an execution as CANCELLED; the execution.

        Raises KeyError for an unknown id, NotCancellable where it has ended or is not `expected`.
        """
        with self.lock:
            now = self.advance()
            execution = self._executions[execution_id]
            if execution.status.is_final:
                raise NotCancellable(f"execution {execution_id} has ended already: {execution.status}")
            if expected is not None and execution.status != expected:
                raise NotCancellable(f"execution {execution_id} is {execution.status}, not {expected}")
            self._end(execution, Status.CANCELLED, now)
            self._start_queued(now)
            self._advance(now)
            return execution

    def execution(self, execution_id: int) -> Execution:
        """One execution as of the last `advance`. Raises KeyError for an unknown id."""
        return self._executions[execution_id]

    def executions(self) -> list[Execution]:
        """All there ever were, oldest first."""
        with self.lock:
            return list(self._executions.values())

    def ids(self, job_id: int | None = None, status: str | None = None) -> Sequence[int]:
        """Ids of the executions of a job, in a status, both, or all; ascending. Not to be changed."""
        if status is None:
            return self._ids.get((job_id, None), ())
        try:
            return self._ids.get((job_id, Status(status)), ())
        except ValueError:
            return ()  # a status that no execution is ever in

    def events(self, execution_id: int | None = None) -> Sequence[Event]:
        """The events of one execution, or all, oldest first. Not to be changed."""
        if execution_id is None:
            return self._events
        event = self._event_of.get(execution_id)
        return () if event is None else (event,)

    def _advance(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, execution_id = heappop(self._due)
            execution = self._executions[execution_id]
            if execution.status is not Status.RUNNING:
                continue  # cancelled before it was due
            self._end(execution, END_STATUS[execution.job.outcome], due)
            event = event_of(execution, self._next_event, due)
            if event is not None:
                self._next_event += 1
                self._events.append(event)
                self._event_of[execution.id] = event
            self._start_queued(due)

    def _start_queued(self, now: float) -> None:
        while self._queue:
            execution = self._queue[0]
            if execution.status is Status.QUEUED:
                if self._running >= self.cpus:
                    return
                if self._memory_used + execution.job.max_memory > self.memory:
                    return  # those behind it wait too: executions start in order
                self._start(execution, now)
            self._queue.popleft()

    def _start(self, execution: Execution, now: float) -> None:
        self._unfile(execution)
        execution.status = Status.RUNNING
        execution.started = now
        self._file(execution)
        self._running += 1
        self._memory_used += execution.job.max_memory
        ends = execution.ends()
        if ends is not None:
            heappush(self._due, (ends, execution.id))

    def _end(self, execution: Execution, status: Status, now: float) -> None:
        if execution.status is Status.RUNNING:
            self._running -= 1
            self._memory_used -= execution.job.max_memory
        self._unfile(execution)
        execution.status = status
        execution.ended = now
        self._file(execution)

    def _file(self, execution: Execution) -> None:
        insort(self._ids[None, execution.status], execution.id)
        insort(self._ids[execution.job.id, execution.status], execution.id)

    def _unfile(self, execution: Execution) -> None:
        for job_id in (None, execution.job.id):
            ids = self._ids[job_id, execution.status]
            del ids[bisect_left(ids, execution.id)]
