"""One line of a report: what was measured, beside what it is compared with, and whether the goal is met."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A figure of ours. A row without a goal is there to be read only, and counts as met."""

    what: str
    ours: str  # with its unit
    peer: str = ""  # whose, and what
    ratio: float | None = None  # ours to the peer's
    goal: str = ""
    met: bool = True

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """Give the row as it stands in a table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.what, self.ours, self.peer, ratio, self.goal, _VERDICTS[self.met] if self.goal else ""

    def line(self) -> str:
        """Give the row for a terminal."""
        what, ours, peer, ratio, goal, verdict = self.cells()
        parts = [f"{what}: {ours}", peer, ratio and f"ratio {ratio}", goal and f"goal {goal}", verdict.upper()]
        return "   ".join(filter(None, parts))


_VERDICTS = {True: "met", False: "not met"}


def milliseconds(seconds: float) -> str:
    """Show a time in milliseconds."""
    return f"{seconds * 1000:.2f} ms"


def within(what: str, seconds: float, limit: float, peer: str = "") -> Row:
    """Give the row of a time whose goal is to be at most `limit`, in seconds too."""
    return Row(what, milliseconds(seconds), peer, goal=f"≤ {limit * 1000:g} ms", met=seconds <= limit)


def table(rows: list[Row]) -> str:
    """Show rows as a table in Markdown."""
    head = ("what", "ours", "beside", "ratio", "goal", "")
    lines = [head, ("---",) * len(head), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
