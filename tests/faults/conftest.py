"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.simulator import Simulator


@pytest.fixture
def engine() -> Iterator[Simulator]:
    """Give a simulated engine whose jobs are short."""
    with Simulator(seconds=0.05, cpus=4) as running:
        yield running
