"""Secrets by reference: `env:NAME`, `file:/path`, `keyring:service/user`. A value itself is never kept in settings."""

from __future__ import annotations

import os
import shlex
import stat

from orchestrator.errors import LoginRefused

MAX_SECRET = 65_536  # bytes that are read of a file
FORMS = "env:NAME, file:/path or keyring:service/user"


def is_reference(text: str) -> bool:
    """Tell whether `text` is one of the forms."""
    form, colon, rest = text.partition(":")
    if not colon or not rest:
        return False
    return form == "env" or (form == "file" and rest.startswith("/")) or (form == "keyring" and "/" in rest)


def read_secret(reference: str) -> str:
    """Give the secret that is meant. Raises LoginRefused: an engine without its secret is down, no more."""
    form, _, rest = reference.partition(":")
    if form == "env":
        value = os.environ.get(rest)
        if value is None:
            raise LoginRefused(f"the environment variable {rest} of {reference} is not set")
        return value
    if form == "file":
        try:
            return _from_file(reference, rest).decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise LoginRefused(f"{reference} cannot be read: {_cause(exc)}") from None
    return _from_keyring(reference, *rest.split("/", 1))


def _from_file(reference: str, path: str) -> bytes:
    """Read a file that is its owner's secret. Raises LoginRefused or OSError."""
    # A link is followed, as containers lay them to their secrets; a FIFO is not waited for.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode):
            raise LoginRefused(f"{reference} is not a regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise LoginRefused(f"{reference} belongs to uid {found.st_uid}, neither root nor uid {os.geteuid()}")
        # Root may have given it to us by way of a group.
        if mode & (0o037 if found.st_uid == 0 else 0o077):
            raise LoginRefused(f"{reference} is open to others (mode {mode:03o}): chmod 600 {shlex.quote(path)}")
        return file.read(MAX_SECRET)


def _cause(exc: OSError | UnicodeDecodeError) -> str:
    """Why, without a byte of what was read."""
    return exc.strerror or "an error" if isinstance(exc, OSError) else "it is not UTF-8"


def _from_keyring(reference: str, service: str, user: str) -> str:
    try:
        import keyring
    except ImportError as exc:
        raise LoginRefused(f"{reference}: install orchestrator[keyring]") from exc
    try:
        value = keyring.get_password(service, user)
    except keyring.errors.KeyringError as exc:
        raise LoginRefused(f"{reference}: the keyring cannot be read: {exc}") from exc
    if value is None:
        raise LoginRefused(f"{reference}: the keyring has no such entry")
    return str(value)
