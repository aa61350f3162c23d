"""Delphix masking engines, over their REST API (docs: masking API 5.1.41 to 5.1.47)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engines.delphix.engine import DelphixEngine

__all__ = ["DelphixEngine"]


def __getattr__(name: str) -> object:
    """Load the engine when it is asked for: to check its settings takes no HTTP client."""
    if name == "DelphixEngine":
        from orchestrator.engines.delphix.engine import DelphixEngine

        return DelphixEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
