"""`orchestrator simulate-engine`."""

from orchestrator.simulator.command import simulate_engine

__all__ = ["simulate_engine"]
