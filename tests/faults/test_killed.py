"""Killed by -9 at every system call that changes something: every job still ends once, and as it should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.simulator import Simulator
from tests.faults.points import JOBS, RUNNER, WHOLE, Ground, hit_points, needs_strace

pytestmark = needs_strace
KILL = "signal=SIGKILL"


@pytest.fixture
def engine() -> Iterator[Simulator]:
    with Simulator(seconds=0.05, cpus=4) as running:
        yield running


@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.parametrize("programs", [("up",), ("watch", "schedule")] if WHOLE else [("up",)], ids="+".join)
def test_a_job_ends_as_it_should_whatever_call_a_program_is_killed_at(
    tmp_path: Path, engine: Simulator, programs: tuple[str, ...], kind: str
) -> None:
    ground = Ground(tmp_path / "house", engine, *programs)
    try:
        reached, tried = 0, 0
        for program in programs:
            found = hit_points(ground, program, KILL, kind)
            reached, tried = reached + found[0], tried + found[1]
        ground.check_all()
    finally:
        ground.close()
    print(f"\n{kind}, {'+'.join(programs)}: killed at {reached} points of {tried} tried")
    assert reached


@pytest.mark.parametrize("kind", ["command", "failing command"])
def test_a_command_ends_once_and_is_never_green_by_mistake_whatever_call_its_runner_is_killed_at(
    tmp_path: Path, engine: Simulator, kind: str
) -> None:
    ground = Ground(tmp_path / "house", engine, "up", RUNNER)
    try:
        reached, tried = hit_points(ground, RUNNER, KILL, kind)
        ground.check_all()
    finally:
        ground.close()
    print(f"\n{kind}, runner: killed at {reached} points of {tried} tried")
    assert reached
