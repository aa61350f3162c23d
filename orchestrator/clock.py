"""The two clocks: UTC for records, time since boot for waiting, so that a jump of the wall clock times nothing out."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

from orchestrator.process import boot_id


def utc_now() -> str:
    """Now, as records keep it: ISO 8601, UTC, microseconds, such as 2026-11-23T21:00:00.000000Z."""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def tick() -> str:
    """Now, as a waiting step keeps it across restarts: the boot's id and the seconds since it."""
    return f"{boot_id()} {time.clock_gettime(time.CLOCK_BOOTTIME):.3f}"


def seconds_since(earlier_tick: str, earlier_utc: str) -> float:
    """Give the seconds since a moment that was kept as `tick()` and as `utc_now()`.

    Within one boot the tick decides; after a reboot only the wall clock can.
    """
    boot, _, seconds = earlier_tick.partition(" ")
    if boot == boot_id():
        return time.clock_gettime(time.CLOCK_BOOTTIME) - float(seconds)
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(earlier_utc)).total_seconds())


def surely_seconds_since(earlier_tick: str) -> float:
    """Give how many seconds, at least, have passed since a `tick()`. No wall clock is asked.

    Of a moment before the last boot only that is sure: it was before the boot.
    """
    boot, _, seconds = earlier_tick.partition(" ")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - (float(seconds) if boot == boot_id() else 0.0)
