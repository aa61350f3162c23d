"""What a check finds, and how checks are kept from one another: one that fails or hangs costs only its own line."""

from __future__ import annotations

import pwd
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import TypeVar

T = TypeVar("T")


class Level(StrEnum):
    """How bad it is."""

    OK = "OK"
    WARN = "WARN"  # works, but will not for long, or not for everybody
    FAIL = "FAIL"  # callers wait in vain, or could be told what is not so


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`."""

    subject: str
    level: Level
    found: str
    advice: str | None = None  # what to do; None where nothing is to be done


def ok(subject: str, found: str) -> Finding:
    """Find that all is well."""
    return Finding(subject, Level.OK, found)


def warn(subject: str, found: str, advice: str) -> Finding:
    """Find what somebody should see to."""
    return Finding(subject, Level.WARN, found, advice)


def fail(subject: str, found: str, advice: str) -> Finding:
    """Find what somebody must see to."""
    return Finding(subject, Level.FAIL, found, advice)


def guarded(subject: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Make a check; where it cannot be made, that is what was found."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except PermissionError as exc:
        found.append(warn(subject, f"{exc.filename}: {exc.strerror}", "run doctor as the user who runs the programs"))
    except OSError as exc:
        what = f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)
        found.append(fail(subject, what, "see whether it is there, mounted and well"))
    except Exception as exc:  # noqa: BLE001 - whatever one check brings out, the others are still made
        told = f"this could not be checked: {type(exc).__name__}: {exc}"
        found.append(warn(subject, told, "report this fault of the program"))
    return found


def side_by_side(calls: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T]:
    """Make calls at the same time, each in a thread; the results of those that ended within `seconds`.

    The others go on in the background, and end with the program at the latest.
    """
    results: dict[str, T] = {}

    def keep(name: str, call: Callable[[], T]) -> None:
        results[name] = call()

    threads = [threading.Thread(target=keep, args=each, name=each[0], daemon=True) for each in calls.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(results)


def user(uid: int) -> str:
    """Name a user."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def account(uid: int) -> str:
    """Name a user as a command takes it."""
    return user(uid).removeprefix("uid ")


def shell(path: Path) -> str:
    """Give a path as a shell takes it."""
    return quote(str(path))


def listed(words: Iterable[object], most: int = 5) -> str:
    """Give the first few of many, and how many there are besides."""
    words = list(words)
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(map(str, words[:most])) + more


def lasting(seconds: float) -> str:
    """Give a time as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
