"""What `orchestrator engine list` says of engines and rows that nobody uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.engine import engines_as_json
from orchestrator.settings import load_settings
from orchestrator.state import EngineState
from orchestrator.store.engines import seed_cpus, set_health
from orchestrator.store.models import Engines

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.parametrize("reason", [None, "no answer"])
def test_a_row_with_a_status_that_does_not_exist_is_told_of(tmp_path: Path, reason: str | None) -> None:
    (tmp_path / "spool").mkdir()
    file = tmp_path / "orchestrator.toml"
    file.write_text('[spools.default]\npath = "spool"\n[engines.local]\nkind = "command"\n')
    seed_cpus("local", 2)
    Engines.insert(engine="local", cpu="CPU7", status="free").execute()
    Engines.insert(engine="local", cpu="CPU8", status="RUNING").execute()
    set_health("local", "command", EngineState.DOWN if reason else EngineState.UP, reason)

    [found] = engines_as_json(load_settings(file))
    told = "CPU7 has status 'free', CPU8 has status 'RUNING', which is never used: make it FREE"
    assert found["reason"] == (f"no answer; {told}" if reason else told)
