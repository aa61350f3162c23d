"""Each system call that changes something fails once: the programs go on or end cleanly, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.simulator import Simulator
from tests.faults.points import JOBS, WHOLE, Ground, hit_points, needs_strace

pytestmark = needs_strace


@pytest.mark.parametrize("kind", JOBS if WHOLE else ["succeeds", "command"])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EMFILE", "EACCES"])
def test_a_job_ends_as_it_should_whatever_call_fails(tmp_path: Path, engine: Simulator, kind: str, error: str) -> None:
    ground = Ground(tmp_path / "house", engine, "up")
    try:
        reached, tried = hit_points(ground, "up", f"error={error}", kind, sample=3)
        ground.check_all()
        assert "Traceback" not in ground.house.log.read_text()
    finally:
        ground.close()
    print(f"\n{kind}: {error} at {reached} points of {tried} tried")
    assert reached
