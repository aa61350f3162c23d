"""What an execution's answer means. Pure: the one place that says when a masking job is FINISHED (P2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.engines.base import Ended, Running
from orchestrator.job import ascii_line
from orchestrator.state import JobStatus

Row = dict[str, Any]

GOING_ON = frozenset({"QUEUED", "WAITING", "RUNNING"})
ENDED = frozenset({"SUCCEEDED", "WARNING", "FAILED", "CANCELLED"})
UNMASKED = "UNMASKED_DATA"
MAX_DETAILS = 20  # events that are told in full


def running(execution: Row) -> Running:
    """Read the progress of an execution that has not ended."""
    masked, total = rows(execution)
    return Running(rows_masked=masked, rows_total=total, waits=execution.get("status") != "RUNNING")


def ended(execution: Row, events: Sequence[Row], on_warning: str) -> Ended:
    """Judge an execution that has ended, by its status and all its events.

    FINISHED needs SUCCEEDED and no event UNMASKED_DATA, or the job's own `on_warning=finish`. Engines before 21 say
    SUCCEEDED even where rows were left unmasked: the event is the only sure sign (docs/delphix.md).
    """
    status = execution.get("status")
    unmasked = [event for event in events if _may_be_unmasked(event)]
    masked, total = rows(execution)
    if status == "CANCELLED":
        verdict, reason = JobStatus.CANCELLED, "cancelled on the engine"
    elif status in ("SUCCEEDED", "WARNING") and (unmasked or status == "WARNING"):
        verdict = JobStatus.FINISHED if on_warning == "finish" else JobStatus.FAILED
        reason = f"the execution ended {status}" + (f": {summary(unmasked)}" if unmasked else _why(events))
    elif status == "SUCCEEDED":
        verdict, reason = JobStatus.FINISHED, ""
    else:
        verdict, reason = JobStatus.FAILED, f"the execution ended {ascii_line(status)}" + _why(events)
    return Ended(
        status=verdict,
        reason=reason or None,
        detail="\n".join(_line(event) for event in events[:MAX_DETAILS]) or None,
        rows_masked=masked,
        rows_total=total,
    )


def rows(execution: Row) -> tuple[int | None, int | None]:
    """Read the rows masked and in all; None for what is not known (-1 while it is being counted)."""
    return _count(execution.get("rowsMasked")), _count(execution.get("rowsTotal"))


def summary(events: Sequence[Row]) -> str:
    """Say in one line what the events tell."""
    counts: Counter[str] = Counter()
    for event in events:
        counts[f"{event.get('eventType')} ({event.get('cause')})"] += _count(event.get("count")) or 1
    return ascii_line(", ".join(f"{kind} {count}x" for kind, count in counts.items()))


def _may_be_unmasked(event: Row) -> bool:
    """Tell whether an event says, or for all that can be read of it may say, that data was left unmasked."""
    kind = event.get("eventType")
    return kind == UNMASKED or not isinstance(kind, str)


def _why(events: Sequence[Row]) -> str:
    return f": {summary(events)}" if events else ""


def _line(event: Row) -> str:
    known = ("eventType", "severity", "cause", "count", "maskedObjectName", "algorithmName", "exceptionType",
             "exceptionDetail")  # fmt: skip
    return ascii_line(" ".join(f"{key}={event[key]}" for key in known if event.get(key) is not None))[:500]


def _count(value: object) -> int | None:
    # No more than a column of the database holds.
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
