"""Delphix masking engines, over their REST API (docs: masking API 5.1.41 to 5.1.47)."""

from orchestrator.engines.delphix.engine import DelphixEngine

__all__ = ["DelphixEngine"]
