"""What a daemon keeps from other users: the files that it makes, and its memory, where passwords are."""

from __future__ import annotations

import ctypes
import logging
import os
import resource

from orchestrator.errors import SettingsError
from orchestrator.settings import Settings

log = logging.getLogger(__name__)

UMASK = 0o077  # what callers are to read (lights, rejected/, the heartbeat) is opened to them file by file
_PR_SET_DUMPABLE = 4  # prctl(2)


def own_files_only() -> None:
    """Make files that no other user can read: database, logs, state of commands."""
    os.umask(UMASK)


def confine() -> None:
    """Keep this process's memory out of core files, and from other processes of its own user."""
    own_files_only()
    # The soft limit alone: commands, which inherit it, may raise it again.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def check_settings_owner(settings: Settings) -> None:
    """Check that a program of root takes no orders from another user. Raises SettingsError."""
    owner = os.stat(settings.file).st_uid
    if os.geteuid() == 0 and owner != 0:
        raise SettingsError(
            f"{settings.file}: belongs to uid {owner}, which could have root run anything: "
            f"chown it to root, or run this as uid {owner}"
        )


def tell_of_needless_root(settings: Settings) -> None:
    """Warn where the program runs as root and nothing in the settings needs that."""
    if os.geteuid() != 0 or any(engine.kind == "command" for engine in settings.engines.values()):
        return
    # Other users' job files, lights and callers: root reads, gives and signals them.
    if not any(spool.path.stat().st_mode & 0o022 for spool in settings.spools.values()):
        log.warning("runs as root, which these settings do not need: see docs/security.md")
