"""On PYTHONPATH, this sets the wall clock of a program to be as far off as the file $WALL_CLOCK_OFF says.

libfaketime would do for the clock, but not for the times of files, which are the kernel's; and it makes the sleep of
Python fail. A file that is touched gets the time of this clock.
"""

from __future__ import annotations

import datetime
import os
import time
from typing import Any

_FILE = os.environ.get("WALL_CLOCK_OFF", "")
_real_ns, _real_utime = time.time_ns, os.utime


def _off() -> int:
    try:
        with open(_FILE, "rb") as file:
            return int(file.read()) * 1_000_000_000
    except OSError:
        return 0


def _time_ns() -> int:
    return _real_ns() + _off()


def _time() -> float:
    return _time_ns() / 1e9


def _utime(path: Any, times: Any = None, **more: Any) -> None:
    if times is None and "ns" not in more:
        now = _time_ns()
        more["ns"] = (now, now)
        _real_utime(path, **more)
    else:
        _real_utime(path, times, **more)


class _DateTime(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.datetime.fromtimestamp(_time(), tz)


if _FILE:
    time.time_ns, time.time, os.utime = _time_ns, _time, _utime
    datetime.datetime = _DateTime  # type: ignore[misc]
