"""The eight callers: what each runs, what it should get, what it got."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
GREEN = "green"
_RED = re.compile(r"^(FAILED|CANCELLED|TIMEOUT|REJECTED)\b.*$", re.MULTILINE)


@dataclass(frozen=True)
class Caller:
    """One bash process, and how it should end."""

    script: str  # beside this file
    job: str
    light: str  # green, or the first word of its light
    status: int  # exit status
    tells: str


CALLERS = (
    Caller("cancelled.bash", "MASK_WARNS", "CANCELLED", 66, "somebody else cancels its job"),
    Caller("mask_and_go_on.bash", "MASK_CRM", GREEN, 0, "one line of an old script is orchestrator.bash"),
    Caller("trap_quit.bash", "MASK_BROKEN", "FAILED", 131, "its job fails, and SIGQUIT tells it so"),
    Caller("touch_only.bash", "MASK_LEAKS", "FAILED", 1, "the engine says SUCCEEDED, but left data unmasked"),
    Caller("six_lines.bash", "MASK_BILLING", GREEN, 0, "the six lines of docs/protocol.md"),
    Caller("mask_and_go_on.bash", "MASK_HR", GREEN, 0, "waits for a free CPU"),
    Caller("mask_and_go_on.bash", "MASK_SALES", GREEN, 0, "waits for a free CPU"),
    Caller("refused.bash", "MASK_CRM", "REJECTED", 65, "its job file has a key that does not exist"),
)


@dataclass(frozen=True)
class Outcome:
    """How one caller ended; `status` is None where it has not."""

    caller: Caller
    status: int | None
    light: str  # empty where it cannot be told
    said: str  # the first line of its light, or else the last line of its output

    @property
    def right(self) -> bool:
        """Did it get what it should?"""
        return (self.status, self.light) == (self.caller.status, self.caller.light)


def outcome_of(caller: Caller, process: subprocess.Popen[bytes], log: Path) -> Outcome:
    """See how a caller ended. Callers show their light, where it is red, before they remove it."""
    output = log.read_text(encoding="utf-8", errors="replace")
    status = process.poll()
    red = _RED.search(output)
    if red is not None:
        return Outcome(caller, status, red[1], red[0])
    last = output.splitlines()[-1:] or [""]
    return Outcome(caller, status, GREEN if status == 0 else "", last[0])


def reason_of(light: str) -> str:
    """Give the reason in the first line of a light."""
    return light.partition(' reason="')[2].removesuffix('"')
