"""Users of a spool. Nobody of them is in the password file, so none has anything on this host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ANNA, BERT = 20_001, 20_002
SERVICE = 20_000  # runs the orchestrator where it is not root
SHARED = 0o3777  # for a group: 3770

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


def given(file: Path, owner: int) -> Path:
    """Make a file another user's."""
    os.chown(file, owner, owner, follow_symlinks=False)
    return file
