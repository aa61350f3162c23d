"""When a masking job is FINISHED, and when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.engines.delphix.verdict import ENDED, GOING_ON, ended, running
from orchestrator.state import JobStatus

FINISHED, FAILED, CANCELLED = JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED

UNMASKED = {"eventType": "UNMASKED_DATA", "cause": "PATTERN_MATCH_FAILURE", "count": 3, "severity": "CRITICAL"}
ABORTED = {"eventType": "JOB_ABORTED", "cause": "UNHANDLED_EXCEPTION"}
FALLBACK = {"eventType": "MASKING_FALLBACK", "cause": "IGNORED_EXCEPTION", "severity": "WARNING"}

TABLE: list[tuple[str, list[dict[str, Any]], JobStatus, JobStatus]] = [
    # status, events, the verdict with on_warning=fail, with on_warning=finish
    ("SUCCEEDED", [], FINISHED, FINISHED),
    ("SUCCEEDED", [FALLBACK], FINISHED, FINISHED),
    ("SUCCEEDED", [UNMASKED], FAILED, FINISHED),
    ("SUCCEEDED", [FALLBACK, ABORTED, UNMASKED], FAILED, FINISHED),
    ("WARNING", [], FAILED, FINISHED),
    ("WARNING", [FALLBACK], FAILED, FINISHED),
    ("WARNING", [UNMASKED], FAILED, FINISHED),
    ("FAILED", [], FAILED, FAILED),
    ("FAILED", [ABORTED], FAILED, FAILED),
    ("FAILED", [UNMASKED], FAILED, FAILED),
    ("CANCELLED", [], CANCELLED, CANCELLED),
    ("CANCELLED", [UNMASKED], CANCELLED, CANCELLED),
]


@pytest.mark.parametrize(("status", "events", "strict", "lenient"), TABLE)
def test_the_verdict_on_an_execution(
    status: str, events: list[dict[str, Any]], strict: JobStatus, lenient: JobStatus
) -> None:
    assert ended({"status": status}, events, "fail").status is strict
    assert ended({"status": status}, events, "finish").status is lenient


def test_the_table_above_names_every_status_in_which_an_execution_ends() -> None:
    assert {row[0] for row in TABLE} == ENDED
    assert not ENDED & GOING_ON


@pytest.mark.parametrize("status", ["succeeded", "DONE", "", None, 0, True, ["SUCCEEDED"], {"SUCCEEDED": 1}])
@pytest.mark.parametrize("events", [[], [UNMASKED], [FALLBACK]])
def test_an_unknown_status_is_never_finished(status: object, events: list[dict[str, Any]]) -> None:
    for on_warning in ("fail", "finish"):
        assert ended({"status": status}, events, on_warning).status is FAILED
    assert ended({}, events, "finish").status is FAILED


@pytest.mark.parametrize(("status", "told"), [("SUCCEEDED", "SUCCEEDED"), ("WARNING", "WARNING")])
def test_the_reason_tells_of_unmasked_data(status: str, told: str) -> None:
    verdict = ended({"status": status}, [UNMASKED, UNMASKED, FALLBACK], "fail")
    assert verdict.reason == f"the execution ended {told}: UNMASKED_DATA (PATTERN_MATCH_FAILURE) 6x"


def test_a_success_needs_no_reason_and_a_lenient_one_keeps_it() -> None:
    assert ended({"status": "SUCCEEDED"}, [], "fail").reason is None
    assert "UNMASKED_DATA" in str(ended({"status": "SUCCEEDED"}, [UNMASKED], "finish").reason)


def test_the_details_are_lines_of_printable_ascii_and_not_too_many() -> None:
    event = {"eventType": "JOB_ABORTED", "exceptionDetail": "Zeile 1\nZeile 2\x1b[31m ä" + "x" * 9999}
    detail = str(ended({"status": "FAILED"}, [event] * 500, "fail").detail)
    lines = detail.split("\n")
    assert len(lines) == 20
    assert all(line.isascii() and line.isprintable() and len(line) <= 500 for line in lines)


@pytest.mark.parametrize(
    ("given", "read"),
    [(0, 0), (7, 7), (-1, None), (None, None), ("7", None), (True, None), (1.5, None), (2**63, None), (10**400, None)],
)
def test_rows_are_counts_or_not_known(given: object, read: int | None) -> None:
    row = {"status": "RUNNING", "rowsMasked": given, "rowsTotal": given}
    assert (running(row).rows_masked, running(row).rows_total) == (read, read)
    assert ended(row | {"status": "FAILED"}, [], "fail").rows_masked == read


@pytest.mark.parametrize(("status", "waits"), [("RUNNING", False), ("QUEUED", True), ("WAITING", True)])
def test_what_the_engine_has_queued_waits(status: str, waits: bool) -> None:
    assert running({"status": status}).waits is waits


@pytest.mark.parametrize("odd", [["UNMASKED_DATA"], {"a": 1}, None, 3])
def test_events_of_the_wrong_shape_are_not_taken_for_a_success(odd: object) -> None:
    events = [{"eventType": odd, "cause": odd, "count": odd, "exceptionDetail": odd}]
    assert ended({"status": "SUCCEEDED"}, events, "fail").status is FAILED
    assert ended({"status": "WARNING"}, events, "fail").status is FAILED
    assert ended({"status": "FAILED"}, events, "fail").status is FAILED
