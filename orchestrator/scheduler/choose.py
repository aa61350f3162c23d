"""Which waiting job goes on which free CPU. Pure: no database, no clock, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.engines.base import Knows, Lookup
from orchestrator.job import Job
from orchestrator.state import EngineState


@dataclass(frozen=True, kw_only=True)
class EngineView:
    """What the choice needs to know of one engine."""

    name: str
    state: EngineState  # what its worker found
    draining: bool = False  # it gets nothing, but says what it has
    cpus: int  # rows of ENGINES
    jobs: int  # jobs that hold one
    free: tuple[str, ...]  # names of the FREE rows
    lookup: Callable[[Job], Lookup]
    queueing: bool = False  # it keeps jobs waiting by itself


@dataclass
class Choice:
    """What is to be done."""

    placings: list[tuple[Job, tuple[str, str]]] = field(default_factory=list)  # job, (engine, cpu)
    unknown: list[tuple[Job, str]] = field(default_factory=list)  # no engine has it, and why: it FAILED
    ask: set[str] = field(default_factory=set)  # engines to be asked anew which jobs they have


def choose(jobs: Iterable[Job], engines: Sequence[EngineView], blocked: set[str] | None = None) -> Choice:
    """Choose a CPU for as many jobs as there is room for.

    `blocked` is added to: the demands (job.demand_of) for which there is no room any more, so that whoever gives `jobs`
    can leave out the rest of these.
    `jobs` come in the order in which they are served: highest priority first, then oldest. A job that cannot be
    placed now holds up none behind it. Among the engines that are UP, not drained, and have the job: those where it
    has not failed yet; then those that do not queue by themselves; then the least loaded.
    """
    choice = Choice()
    blocked = set() if blocked is None else blocked
    rooms = {engine.name: _Room(engine) for engine in engines}
    for job in jobs:
        if not any(room.left for room in rooms.values()):
            break
        if job.demand in blocked:
            continue
        allowed = [engine for engine in engines if not job.allowed_engines or engine.name in job.allowed_engines]
        answers = {engine.name: engine.lookup(job) for engine in allowed if engine.state is EngineState.UP}
        having = [name for name, answer in answers.items() if answer.knows is Knows.YES and rooms[name].may_open]
        choice.ask |= {name for name, answer in answers.items() if answer.knows is Knows.ASK}
        # Elsewhere than where it failed, even if that means to wait: but only where there is an elsewhere.
        fresh = [name for name in having if name not in job.tried_engines] or having
        open_rooms = [rooms[name] for name in fresh if rooms[name].left]
        if open_rooms:
            room = min(open_rooms, key=_Room.load)
            choice.placings.append((job, (room.engine.name, room.take())))
        elif (
            not having
            and all(engine.name in answers for engine in allowed)
            and all(answer.knows is Knows.NO for answer in answers.values())
        ):
            choice.unknown.append((job, _nobody(job, answers)))
        elif job.demand and not job.tried:  # one that has been tried may have less to choose from than others
            blocked.add(job.demand)
    return choice


class _Room:
    """What is left of an engine while jobs are being placed on it."""

    def __init__(self, engine: EngineView) -> None:
        self.engine = engine
        self.taken = 0
        self.may_open = engine.state is EngineState.UP and not engine.draining and engine.cpus > 0
        # Rows may be FREE while jobs still run on it: somebody deleted the rows under them (P5).
        self.capacity = min(len(engine.free), max(0, engine.cpus - engine.jobs)) if self.may_open else 0

    @property
    def left(self) -> int:
        return self.capacity - self.taken

    def load(self) -> tuple[bool, float, str]:
        return self.engine.queueing, (self.engine.jobs + self.taken) / self.engine.cpus, self.engine.name

    def take(self) -> str:
        self.taken += 1
        return self.engine.free[self.taken - 1]


def _nobody(job: Job, answers: dict[str, Lookup]) -> str:
    if not answers:
        return f"no engine may run job {job.job}"
    told = "; ".join(f"{name}: {answer.why}" for name, answer in sorted(answers.items()))
    return f"no engine knows job {job.job}; asked: {told}"
