"""BENCHMARKS.md: all rows of one run, and the machine that it ran on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from benchmarks.place import ROOT
from benchmarks.row import Row, table

FILE = ROOT / "BENCHMARKS.md"


def write(rows: Sequence[Row], machine: Mapping[str, str], seconds: float) -> None:
    """Write the report over the one before; the run took so many seconds."""
    with_goal = [row for row in rows if row.goal]
    met = sum(row.met for row in with_goal)
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC, in {seconds / 60:.0f} minutes: "
        f"{met} of {len(with_goal)} goals are met.",
        "",
        "A machine is noisy, and each is another one: **the ratios count**, not the figures. Peers do the same work,",
        "in the same run, in turn with ours. Every job of ours is durable: it is in a database on disk, synchronised,",
        "before anything is done about it; task-spooler keeps its queue in memory. huey's callers are threads of one",
        "Python that runs already: each of ours, and of task-spooler's and nq's, is a bash that is started meanwhile.",
        "How costs grow is in [docs/scaling.md](docs/scaling.md).",
        "",
        table(list(rows)),
        "## The machine",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in machine.items()),
    ]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
