"""A spool that users share who need not trust each other: sticky, as `orchestrator init --shared` makes it."""

from __future__ import annotations

import pytest

from tests.security.users import SHARED
from tests.spool.conftest import _lease_breaks, database, place
from tests.spool.place import Place

__all__ = ["_lease_breaks", "database", "place"]


@pytest.fixture
def shared(place: Place) -> Place:
    """Give a sticky spool; files of its users are made by root and given away."""
    place.path.chmod(SHARED)
    return place
