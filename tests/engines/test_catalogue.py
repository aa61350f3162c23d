"""Which masking jobs an engine has, and what a job file means by a name."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.engines.base import Knows
from orchestrator.engines.delphix.catalogue import Catalogue, MaskingJob, read_jobs

from .make import a_job

CRM = MaskingJob(1, "MASK_CRM", "PROD")
JOBS = (CRM, MaskingJob(2, "MASK_HR", "PROD"), MaskingJob(3, "MASK_HR", "TEST"), MaskingJob(4, "2", "TEST"))
CATALOGUE = Catalogue(JOBS)


@pytest.mark.parametrize(
    ("job", "environment", "number"),
    [
        ("MASK_CRM", None, 1), ("MASK_CRM", "PROD", 1), ("MASK_HR", "TEST", 3), ("MASK_HR", "PROD", 2),
        ("1", None, 1), ("3", "TEST", 3), ("2", None, 4), ("2", "TEST", 4),
    ],
)  # fmt: skip
def test_a_job_is_found_by_name_then_by_id(job: str, environment: str | None, number: int) -> None:
    found = CATALOGUE.find(a_job(job=job, environment=environment))
    assert isinstance(found, MaskingJob)
    assert found.id == number


@pytest.mark.parametrize(
    ("job", "environment", "why"),
    [
        ("MASK_X", None, "no job MASK_X"),
        ("mask_crm", None, "no job mask_crm"),
        ("9", None, "no job 9"),
        ("٣", None, "no job ٣"),
        ("1" * 20, None, "no job " + "1" * 20),
        ("MASK_HR", None, "job MASK_HR is in several environments (PROD, TEST): say environment="),
        ("MASK_CRM", "TEST", "no job MASK_CRM in environment TEST (but there is one in PROD)"),
        ("MASK_X", "TEST", "no job MASK_X in environment TEST"),
        ("1", "TEST", "no job 1 in environment TEST (but there is one in PROD)"),
    ],
)
def test_a_job_that_is_not_there_or_not_the_only_one_is_told(job: str, environment: str | None, why: str) -> None:
    assert CATALOGUE.find(a_job(job=job, environment=environment)) == why


def test_what_is_not_known_is_to_be_asked_for() -> None:
    assert CATALOGUE.lookup(a_job()).knows is Knows.YES
    assert CATALOGUE.lookup(a_job(job="MASK_X")).knows is Knows.ASK
    assert Catalogue().lookup(a_job()).knows is Knows.ASK


def test_what_is_not_known_may_be_where_this_user_sees_nothing() -> None:
    told = Catalogue(JOBS, hidden=("HR", "CRM\n")).find(a_job(job="MASK_X"))
    assert told == "no job MASK_X (the jobs of CRM\\n, HR are not shown)"


def test_what_is_told_of_the_engines_own_names_can_be_kept_and_printed() -> None:
    told = Catalogue((MaskingJob(1, "J", "\ud800\n"), MaskingJob(2, "J", "é"))).find(a_job(job="J"))
    assert isinstance(told, str)
    assert told.isprintable()
    assert told.encode()


def test_rows_that_make_no_sense_are_left_out() -> None:
    rows: list[dict[str, Any]] = [
        {"maskingJobId": 1, "jobName": "MASK_CRM"}, {"maskingJobId": "2", "jobName": "A"}, {"maskingJobId": 3}, {},
        {"maskingJobId": True, "jobName": "B"}, {"maskingJobId": 5, "jobName": ["C"]},
    ]  # fmt: skip
    assert read_jobs(rows, "PROD") == [CRM]
