"""The interface of all engines, and how their kinds are found.

One Engine belongs to one thread: the worker of that engine. Only `lookup` may be called by others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from orchestrator.errors import EngineDown, SettingsError
from orchestrator.job import Job
from orchestrator.settings import EngineSettings, Settings
from orchestrator.state import JobStatus

ENTRY_POINTS = "orchestrator.engines"


class Knows(Enum):
    """Whether an engine has a job."""

    YES = 1
    NO = 2
    ASK = 3  # not when it was last asked: `refresh` it, and where that was done since the job came, it means NO


@dataclass(frozen=True)
class Lookup:
    """The answer to: can this engine run this job? `why` tells where it cannot."""

    knows: Knows
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Running:
    """An execution that has not ended. `waits` where the engine itself has queued it."""

    rows_masked: int | None = None
    rows_total: int | None = None
    waits: bool = False


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An execution that has ended for sure."""

    status: JobStatus  # FINISHED, FAILED or CANCELLED
    reason: str | None = None
    exit_status: int | None = None
    detail: str | None = None
    rows_masked: int | None = None
    rows_total: int | None = None
    may_run_on: bool = False  # the caller is told, but the execution may still need its CPU


@dataclass(frozen=True)
class Unsure:
    """What the engine tells may mean an end, or nothing yet: the job's `unsure_tick` is since when it tells so."""


# What was found of one job. EngineDown: the engine answers, but its answer about this job makes no sense.
State = Running | Ended | Unsure | EngineDown


class StartLost(Exception):  # noqa: N818 - named for what it tells
    """Even the engine cannot tell whether a start arrived. `str()` says why, in one line.

    `may_run` where `check` can tell later, by a job without an execution, whether anything runs that it may have
    started: until then the job keeps its CPU.
    """

    def __init__(self, why: str, *, may_run: bool = False) -> None:
        super().__init__(why)
        self.may_run = may_run


class Engine(ABC):
    """One engine of one kind. Every method may raise EngineDown: then nothing is known, and it is asked again."""

    poll: float = 2.0  # seconds: the longest between two looks at a running job
    mark_asks: bool = True  # whether `mark` asks the engine, and so may take long

    def __init__(self, settings: EngineSettings, everything: Settings) -> None:
        """Check the settings of this kind. Raises SettingsError; asks the engine nothing yet."""
        self.name = settings.name
        self.kind = settings.kind

    @abstractmethod
    def describe(self) -> str:
        """Ask the engine what it is, and so whether it is there; one line for people."""

    @abstractmethod
    def lookup(self, job: Job) -> Lookup:
        """Tell whether this engine has `job`, by what is remembered: asks nothing, may be called by any thread.

        The answer is the same for all jobs of one demand (job.demand_of).
        """

    @abstractmethod
    def refresh(self) -> None:
        """Ask anew which jobs there are. Raises EngineDown also where it could list some of them only."""

    @abstractmethod
    def mark(self, job: Job) -> str | None:
        """Ask, before a start, for what `find_start` will need to tell whether it arrived.

        Raises StartRefused where the engine no longer has the job.
        """

    @abstractmethod
    def start(self, job: Job) -> str:
        """Start a job whose intent is recorded (`attempts`, `start_mark`); the execution's id.

        Raises StartRefused (it does not run), StartUnknown (it may run), or EngineDown (it surely does not run).
        """

    @abstractmethod
    def find_start(self, job: Job, others: Iterable[str]) -> str | None:
        """Ask whether a start of which nobody recorded the outcome has arrived; its execution, or None: surely not.

        `others` are the executions of this engine that are known to belong to other jobs. Raises StartLost.
        """

    @abstractmethod
    def check(self, jobs: Sequence[Job]) -> Mapping[int, State]:
        """Look at running jobs; what was found, by the job's id. A job that is left out is not known of now.

        A job that has ended and bears no execution is a lost start: Running as long as anything runs that it may
        have started.
        """

    @abstractmethod
    def cancel(self, job: Job) -> None:
        """Ask that a running job ends. Called again until it has."""

    def forget(self, job: Job) -> None:  # noqa: B027 - most kinds keep nothing
        """Drop what is kept for an attempt whose end is recorded."""

    def is_queueing(self) -> bool:
        """Tell whether the engine itself keeps jobs waiting, whatever CPUs it is said to have. For any thread."""
        return False

    def known_jobs(self) -> int | None:
        """Count the jobs that it was last found to have; None where that is not known."""
        return None

    def clock_skew(self) -> float | None:
        """Give the seconds by which its clock was ahead of ours at its last answer; None where it does not tell."""
        return None

    def wait_fds(self) -> Iterable[int]:
        """Give file descriptors that become readable when there is something to check at once."""
        return ()

    def linger(self) -> None:  # noqa: B027 - most kinds tell of no end by themselves
        """Take in what woke the thread; where one end was told of, wait a moment for others to share what is done."""

    def warm_up(self) -> None:  # noqa: B027 - most kinds have nothing to get ready
        """Get ready for the first start, where the engine is used from now on. What cannot be is tried again then."""

    def close(self) -> None:  # noqa: B027 - most kinds hold nothing
        """Give everything back; what runs goes on running."""


def make_engine(settings: EngineSettings, everything: Settings) -> Engine:
    """Make the engine that a table of the settings describes. Raises SettingsError."""
    from importlib.metadata import entry_points  # here, since the command line seldom needs what it takes long to load

    kinds = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    point = kinds.get(settings.kind)
    if point is None:
        raise SettingsError(
            f"{settings.where}.kind: there is no {settings.kind!r}; there are: {', '.join(sorted(kinds))}"
        )
    made: Engine = point.load()(settings, everything)
    return made
