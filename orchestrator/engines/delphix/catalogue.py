"""Which masking jobs an engine has, and under which id: the same job has another id on each engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.engines.base import Knows, Lookup
from orchestrator.job import Job, ascii_line

Row = dict[str, Any]


@dataclass(frozen=True)
class MaskingJob:
    """One masking job of an engine."""

    id: int
    name: str
    environment: str


@dataclass(frozen=True)
class Catalogue:
    """All masking jobs of an engine, as it last told them. Never changed: threads share it.

    `hidden` are the environments whose jobs the engine does not show to its user.
    """

    jobs: tuple[MaskingJob, ...] = ()
    hidden: tuple[str, ...] = ()
    _by_name: dict[str, list[MaskingJob]] = field(default_factory=dict)
    _by_id: dict[int, MaskingJob] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for job in self.jobs:
            self._by_name.setdefault(job.name, []).append(job)
            self._by_id[job.id] = job

    def find(self, job: Job) -> MaskingJob | str:
        """Find what a job means by its `job` (a name, else an id) and `environment`; or why there is none."""
        found = list(self._by_name.get(job.job, ()))
        if not found and job.job.isascii() and job.job.isdigit() and len(job.job) < 11:
            found = [self._by_id[int(job.job)]] if int(job.job) in self._by_id else []
        if job.environment is not None:
            inside = [each for each in found if each.environment == job.environment]
            if not inside:
                there = _environments(found)
                elsewhere = f" (but there is one in {there})" if found else ""
                return f"no job {job.job} in environment {job.environment}{elsewhere}{self._unseen()}"
            found = inside
        if not found:
            return f"no job {job.job}{self._unseen()}"
        if len(found) > 1:
            return f"job {job.job} is in several environments ({_environments(found)}): say environment="
        return found[0]

    def lookup(self, job: Job) -> Lookup:
        """Tell whether the engine has a job, or is to be asked anew: it may have been made since."""
        found = self.find(job)
        return Lookup(Knows.YES) if isinstance(found, MaskingJob) else Lookup(Knows.ASK, found)

    def _unseen(self) -> str:
        return f" (the jobs of {_listed(self.hidden)} are not shown)" if self.hidden else ""


def _environments(jobs: Iterable[MaskingJob]) -> str:
    return _listed(each.environment for each in jobs)


def _listed(names: Iterable[str]) -> str:
    return ascii_line(", ".join(sorted(names)))


def read_jobs(rows: Iterable[Row], environment: str) -> list[MaskingJob]:
    """Read the rows of /masking-jobs of one environment; rows that make no sense are left out."""
    return [
        MaskingJob(row["maskingJobId"], row["jobName"], environment)
        for row in rows
        if type(row.get("maskingJobId")) is int and isinstance(row.get("jobName"), str)
    ]
