"""Each system call that changes something fails once: the programs go on or end cleanly, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.simulator import Simulator
from tests.faults.points import JOBS, RUNNER, WHOLE, Ground, hit_points, needs_strace

pytestmark = needs_strace


ERRORS = ["ENOSPC", "EIO", "EMFILE", "EACCES"]


@pytest.mark.parametrize("kind", JOBS if WHOLE else ["succeeds", "command"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("programs", [("up",), ("watch", "schedule")] if WHOLE else [("up",)], ids="+".join)
def test_a_job_ends_as_it_should_whatever_call_fails(
    tmp_path: Path, engine: Simulator, programs: tuple[str, ...], kind: str, error: str
) -> None:
    _fail_calls(Ground(tmp_path / "house", engine, *programs), programs, kind, error)


@pytest.mark.parametrize("kind", ["command", "failing command"])
@pytest.mark.parametrize("error", ERRORS)
def test_a_command_ends_once_and_is_never_green_by_mistake_whatever_call_of_its_runner_fails(
    tmp_path: Path, engine: Simulator, kind: str, error: str
) -> None:
    _fail_calls(Ground(tmp_path / "house", engine, "up", RUNNER), (RUNNER,), kind, error)


def _fail_calls(ground: Ground, programs: tuple[str, ...], kind: str, error: str) -> None:
    try:
        reached = tried = 0
        for program in programs:
            found = hit_points(ground, program, f"error={error}", kind, sample=3)
            reached, tried = reached + found[0], tried + found[1]
        ground.check_all()
        assert "Traceback" not in ground.house.log.read_text()
    finally:
        ground.close()
    print(f"\n{kind}, {'+'.join(programs)}: {error} at {reached} points of {tried} tried")
    assert reached
