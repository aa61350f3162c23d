"""How each cost grows, at three sizes each: the table of docs/scaling.md. Takes about six minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.callers import waiting_callers
from benchmarks.intake import intake_rate
from benchmarks.masking import asked_of
from benchmarks.place import Place, folder
from benchmarks.placing import placing_time, queue_of
from benchmarks.process import MIB
from benchmarks.row import milliseconds

FEW = 100


def growth() -> None:
    """Print it."""
    print("| cost | grows with | small | middle | large |\n|---|---|---|---|---|", flush=True)
    _line("to place one job", "ended jobs in the history", (100, 10_000, 1_000_000), _with_history)
    _line("to place one job", "jobs that wait", (100, 10_000, 100_000), _with_waiting)
    _line("job files taken a second", "files that wait at the start", (1_000, 10_000, 100_000), _taken)
    _line("CPU of all callers, memory of one", "callers that wait", (10, 100, 1_000), _callers)
    _line("requests a second, CPU of `schedule`", "engines with 10 running jobs each", (1, 10, 30), _engines)


def _line(cost: str, grows_with: str, sizes: Sequence[int], measure: Callable[[int], str]) -> None:
    cells = [f"{size:,}: {measure(size)}" for size in sizes]
    print(f"| {cost} | {grows_with} | {' | '.join(cells)} |", flush=True)


def _with_history(ended: int) -> str:
    return _placing(ended, FEW)


def _with_waiting(waiting: int) -> str:
    return _placing(FEW, waiting)


def _placing(ended: int, waiting: int) -> str:
    with folder() as where:
        return milliseconds(placing_time(queue_of(Place(where / "place"), ended=ended, waiting=waiting)))


def _taken(files: int) -> str:
    return f"{intake_rate(files):,.0f}"


def _callers(count: int) -> str:
    cost = waiting_callers(count)
    return f"{cost.cpu:.1%} of a core, {cost.median_memory / MIB:.1f} MiB"


def _engines(count: int) -> str:
    asked = asked_of(count, 10)
    return f"{asked.a_second:.0f} a second, {asked.cpu:.1%} of a core"
