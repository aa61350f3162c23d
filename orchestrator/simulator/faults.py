"""The ways in which a simulated engine misbehaves on demand.

A counted fault hits the next N requests that it fits; the others stand until they are set to 0:

    lost_answer    the next N POST /executions are carried out, but the connection is closed unanswered
    lost_request   the next N POST /executions: the connection is closed, nothing is done
    refuse_start   the next N POST /executions get 409, nothing is done
    status_500     the next N requests get 500, nothing is done
    status_503     the next N requests get 503, nothing is done
    status_401     the next N requests that bear a good token get 401, and all tokens end
    hang           the next N requests are not answered for 60 s, nothing is done, the connection is closed
    garbage        the next N good answers are 200 with bytes that are not JSON
    truncated      the next N good answers end in the middle of the body, the connection is closed
    wrong_types    the next N good answers are JSON of the wrong shape
    huge           the next N good answers are tens of MB long
    slow           each request takes VALUE seconds more
    refuse_login   each login gets 401
    redirect       each request gets a 302 to VALUE
    vanish         the execution with the id VALUE (or the ids in the list VALUE) is not shown
    clock          VALUE seconds are added to all times shown
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

Value = int | float | str | list[int]

COUNTED = frozenset(
    (
        "lost_answer",
        "lost_request",
        "refuse_start",
        "status_500",
        "status_503",
        "status_401",
        "hang",
        "garbage",
        "truncated",
        "wrong_types",
        "huge",
    )
)
STANDING = frozenset(("slow", "refuse_login", "redirect", "vanish", "clock"))
NEEDS_VALUE = frozenset(("redirect", "vanish", "clock"))
HANG_SECONDS = 60.0
_RANGES = {"slow": (0.0, 3600.0), "clock": (-1e9, 1e9)}  # seconds; of the numbers that stand


class FaultError(ValueError):
    """An unknown fault, or a value that it cannot have: one line."""


class Faults:
    """The faults in force. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}
        self._changed = threading.Condition()
        self._releases = 0
        self._stopped = False

    def set(self, values: Mapping[str, object]) -> None:
        """Put faults in force, all of them or, where it raises FaultError, none; 0 switches one off."""
        checked = {name: _checked(name, value) for name, value in values.items()}
        with self._changed:
            for name, value in checked.items():
                if value:
                    self._values[name] = value
                else:
                    self._values.pop(name, None)
            if checked.get("hang") == 0:
                self._release()

    def clear(self) -> None:
        """Switch all off, and let go whatever hangs."""
        with self._changed:
            self._values.clear()
            self._release()

    def in_force(self) -> dict[str, Value]:
        """Each fault that is in force and its value: for a counted one, how many it will still hit."""
        with self._changed:
            return dict(self._values)

    def take(self, name: str) -> bool:
        """Whether the counted fault `name` hits now; it counts as a hit."""
        if name not in self._values:  # nearly always: not worth a lock
            return False
        with self._changed:
            left = self._values.get(name)
            if not isinstance(left, int):
                return False
            if left > 1:
                self._values[name] = left - 1
            else:
                del self._values[name]
            return True

    def number(self, name: str) -> float:
        """The value of a standing fault that is a number; 0 where it is off."""
        value = self._values.get(name, 0)
        return value if isinstance(value, int | float) else 0

    @property
    def redirect(self) -> str | None:
        """Where requests are redirected to."""
        value = self._values.get("redirect")
        return value if isinstance(value, str) else None

    @property
    def vanished(self) -> frozenset[int]:
        """The ids of the executions that are not shown."""
        value = self._values.get("vanish", ())
        return frozenset((value,)) if isinstance(value, int) else frozenset(map(int, _listed(value)))

    def hang(self) -> None:
        """Block for as long as a hanging request does: 60 s, until `hang` is set to 0, or until `stop`."""
        with self._changed:
            releases = self._releases
            self._changed.wait_for(lambda: self._stopped or self._releases != releases, HANG_SECONDS)

    def pause(self, seconds: float) -> None:
        """Block for `seconds`, or until `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)

    def stop(self) -> None:
        """Let go whatever blocks, and block nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def start(self) -> None:
        """Undo `stop`."""
        with self._changed:
            self._stopped = False

    def _release(self) -> None:
        self._releases += 1
        self._changed.notify_all()


def fault_from_text(text: str) -> tuple[str, object]:
    """The name and value in `NAME[=VALUE]`, as typed by a person; raises FaultError."""
    name, equals, value = text.partition("=")
    if name not in COUNTED | STANDING:
        raise _unknown(name)
    if not equals:
        if name in NEEDS_VALUE:
            raise FaultError(f"{name}: needs a value: {name}=VALUE")
        return name, _checked(name, 1)
    if name == "redirect":
        return name, _checked(name, value)
    try:
        number = float(value)
    except ValueError:
        raise FaultError(f"{name}: must be a number, not {value!r}") from None
    return name, _checked(name, int(number) if number.is_integer() else number)


def _checked(name: str, value: object) -> Value:
    if name in COUNTED or name == "vanish":
        if name == "vanish" and isinstance(value, list) and all(_is_count(each) for each in value):
            return list(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise FaultError(f"{name}: must be a whole number from 0 on, not {value!r}")
        return value
    if name not in STANDING:
        raise _unknown(name)
    if name == "redirect":
        if value in (0, "", "0", None):
            return ""
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise FaultError(f"redirect: must be a URL, not {value!r}")
        return value
    if name == "refuse_login" and isinstance(value, bool):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FaultError(f"{name}: must be a number, not {value!r}")
    least, most = _RANGES.get(name, (0.0, math.inf))
    if not least <= value <= most:
        raise FaultError(f"{name}: must be from {least:g} to {most:g}, not {value!r}")
    return value


def _unknown(name: str) -> FaultError:
    return FaultError(f"{name}: unknown fault; there are {', '.join(sorted(COUNTED | STANDING))}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _listed(value: object) -> list[int]:
    return value if isinstance(value, list) else []
