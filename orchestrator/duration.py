"""Durations as people write them: `90`, `500ms`, `30s`, `15m`, `2h`."""

from __future__ import annotations

import re

_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Give the seconds that `text` means; ValueError where it is none of the known forms or is not above 0."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration (a number of seconds, or 500ms, 30s, 15m, 2h): {text[:64]!r}")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds <= 0:
        raise ValueError(f"a duration must be above 0: {text[:64]!r}")
    return seconds
