"""Engines that the settings no longer have, while jobs are still on them."""

from __future__ import annotations

from typing import Any, NoReturn

from orchestrator.engines.base import Engine, Knows, Lookup
from orchestrator.errors import EngineDown
from orchestrator.job import Job
from orchestrator.settings import EngineSettings, Settings
from orchestrator.store.engines import placed_by_engine


class GoneEngine(Engine):
    """Stands for such an engine: it never answers, so its jobs are treated as those of an engine that is down."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(EngineSettings(name=name, kind="unknown", cpus=None, options={}, where=""), settings)

    def _never_answer(self, *_: Any, **__: Any) -> NoReturn:
        raise EngineDown("the settings no longer have it")

    describe = refresh = mark = start = find_start = check = cancel = _never_answer

    def lookup(self, job: Job) -> Lookup:
        """Nobody is to be sent there."""
        return Lookup(Knows.NO, "the settings no longer have it")


def gone_engines(settings: Settings) -> dict[str, int]:
    """Count the jobs on each engine that the settings no longer have."""
    return {name: count for name, count in placed_by_engine().items() if name not in settings.engines}
