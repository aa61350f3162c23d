"""Secrets by reference: `env:NAME`, `file:/path`, `keyring:service/user`. A value itself is never kept in settings."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.errors import LoginRefused

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
            return Path(rest).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise LoginRefused(f"{reference} cannot be read: {exc}") from exc
    return _from_keyring(reference, *rest.split("/", 1))


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
