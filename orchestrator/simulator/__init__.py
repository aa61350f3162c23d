"""A masking engine that only pretends: the REST API in full, jobs as waiting time, faults on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.simulator.server import Simulator

__all__ = ["Simulator"]


def __getattr__(name: str) -> object:
    # Late, so that a command line that only registers simulate-engine does not load the server.
    if name == "Simulator":
        from orchestrator.simulator.server import Simulator

        return Simulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
