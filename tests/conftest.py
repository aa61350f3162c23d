"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House

os.umask(0o022)  # with that of some users (002) settings and job files would be open to a group


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Give an installation with a command engine of two CPUs and no program running."""
    built = House(tmp_path)
    built.add_settings('[engines.local]\nkind = "command"\ncpus = 2')
    built.add_settings('[commands.true]\nrun = ["/bin/true"]\n[commands.sh]\nrun = ["/bin/sh", "-c", "{param.line}"]')
    yield built
    built.close()


@pytest.fixture
def masking_house(tmp_path: Path) -> Iterator[House]:
    """Give an installation without engines; the test adds its simulated ones."""
    built = House(tmp_path)
    yield built
    built.close()
