"""The engine of kind `delphix`: what orchestrator wants of an engine, said in the masking API's words."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.clock import surely_seconds_since
from orchestrator.engines.base import Ended, Engine, Knows, Lookup, Running, StartLost, State, Unsure
from orchestrator.engines.delphix import verdict
from orchestrator.engines.delphix.catalogue import Catalogue, MaskingJob, read_jobs
from orchestrator.engines.delphix.client import DelphixClient, NotThere, Refused, Row
from orchestrator.engines.delphix.settings import read_settings
from orchestrator.errors import EngineDown, StartRefused, StartUnknown
from orchestrator.job import Job, ascii_line
from orchestrator.settings import EngineSettings, Settings
from orchestrator.state import JobStatus

log = logging.getLogger(__name__)

CONFIRM_AFTER = 60.0  # seconds after which a remembered job id is confirmed before it is started
VANISHED_WAIT = 2.0  # seconds that an execution may be gone before the job FAILS for it
ODD_STATUS_WAIT = 60.0  # seconds that an unknown status may stand before the job FAILS for it


class DelphixEngine(Engine):
    """One Delphix masking engine."""

    def __init__(self, settings: EngineSettings, everything: Settings) -> None:
        """Check the settings. Raises SettingsError."""
        super().__init__(settings, everything)
        self._settings = read_settings(settings)
        self.poll = self._settings.poll
        self._client = DelphixClient(self._settings)
        self._catalogue = Catalogue()
        self._confirmed: dict[int, float] = {}  # masking job id: when, on the monotonic clock
        self._too_late: dict[tuple[int, int], float] = {}  # lost starts, by job and attempt: see _is_too_late
        self._waits: set[str] = set()  # executions that the engine itself has queued
        self._logins = 0
        if self._settings.verify is False:
            log.warning("engine %s: verify = false: anybody on the way can read the password", self.name)

    def close(self) -> None:
        """Close the session."""
        self._client.close()

    def describe(self) -> str:
        """Ask for the system's information."""
        try:
            info = self._client.get("/system-information")
        except (NotThere, Refused) as exc:
            raise EngineDown(str(exc)) from exc
        return f"masking engine {ascii_line(info.get('version'))}"

    def lookup(self, job: Job) -> Lookup:
        """Look the job up in the catalogue."""
        if job.command is not None:
            return Lookup(Knows.NO, "runs no commands")
        return self._catalogue.lookup(job)

    def is_queueing(self) -> bool:
        """Tell whether executions of ours wait past its NumSimulJobsAllowed or MaximumMemoryForJobs."""
        return bool(self._waits)

    def known_jobs(self) -> int | None:
        """Count the masking jobs in the catalogue."""
        return len(self._catalogue.jobs)

    def clock_skew(self) -> float | None:
        """Compare the clock in its last answer with ours."""
        return self._client.clock_skew()

    def refresh(self) -> None:
        """List all environments and their masking jobs."""
        unlisted = self._list_jobs()
        if unlisted:
            raise EngineDown(unlisted)

    def _list_jobs(self) -> str:
        """List all that can be listed; which environments cannot be now, and why. What was known of them stays."""
        unlisted: list[str] = []
        hidden: list[str] = []
        jobs: list[MaskingJob] = []
        kept: list[MaskingJob] = []
        for number, name in self._environments():
            try:
                jobs += read_jobs(self._client.pages("/masking-jobs", environment_id=number), name)
            except (NotThere, Refused) as exc:  # nothing in it can be started by this user anyway
                if name not in self._catalogue.hidden:
                    log.warning("engine %s: environment %s: %s", self.name, ascii_line(name), exc)
                hidden.append(name)
            except EngineDown as exc:
                self.describe()  # raises where it is not about this environment alone
                unlisted.append(f"environment {ascii_line(name)}: {exc}")
                kept += [job for job in self._catalogue.jobs if job.environment == name]
        self._catalogue = Catalogue((*jobs, *kept), tuple(hidden))
        now = time.monotonic()
        self._confirmed = {job.id: now for job in jobs}
        self._logins = self._client.logins
        return "; ".join(unlisted)

    def _environments(self) -> list[tuple[int, str]]:
        try:
            rows = list(self._client.pages("/environments"))
        except (NotThere, Refused) as exc:
            raise EngineDown(str(exc)) from exc
        found = [(row.get("environmentId"), row.get("environmentName")) for row in rows]
        return [(number, name) for number, name in found if type(number) is int and isinstance(name, str)]

    def mark(self, job: Job) -> str | None:
        """Count the job's executions so far, as `JOBID:COUNT`: one more tells later that a start arrived."""
        for _ in range(3):
            masking_job = self._confirmed_job(job)
            logins = self._client.logins
            try:
                _, total = self._client.page("/executions", 1, 1, job_id=masking_job.id)
            except (NotThere, Refused) as exc:
                raise StartRefused(str(exc)) from exc
            if self._client.logins == logins:
                return f"{masking_job.id}:{total}"
            # It wanted a new login in between, perhaps because it is a new engine, where the id means another job.
        raise EngineDown("its tokens end with every request")

    def _confirmed_job(self, job: Job) -> MaskingJob:
        """Look the job up; asked anew where the engine may mean something else by the id that is remembered."""
        unlisted = ""
        if self._client.logins != self._logins:  # perhaps restarted, perhaps reinstalled
            unlisted = self._list_jobs()
        found = self._catalogue.find(job)
        long_ago = time.monotonic() - CONFIRM_AFTER
        if isinstance(found, MaskingJob) and self._confirmed.get(found.id, long_ago) <= long_ago:
            try:
                row = self._client.get(f"/masking-jobs/{found.id}")
                certain = row.get("jobName") == found.name
            except (NotThere, Refused):
                certain = False
            if certain:
                self._confirmed[found.id] = time.monotonic()
                return found
            found = "its id means another job now"
        if isinstance(found, str):
            unlisted = self._list_jobs()
            found = self._catalogue.find(job)
        if isinstance(found, str):
            if unlisted:
                raise EngineDown(f"{found}; {unlisted}")
            raise StartRefused(f"engine {self.name} no longer has it: {found}")
        return found

    def start(self, job: Job) -> str:
        """POST /executions, once."""
        job_id, _ = _read_mark(job)
        body: Row = {"jobId": job_id}
        if job.target_connector is not None:
            body["targetConnectorId"] = job.target_connector
        if job.source_connector is not None:
            body["sourceConnectorId"] = job.source_connector
        sent = time.monotonic()
        try:
            answer = self._client.post_once("/executions", body)
            execution = answer.get("executionId")
            if type(execution) is not int or answer.get("jobId") != job_id:
                raise StartUnknown("the engine's answer names no execution of the job")
        except StartUnknown:
            # An engine that took so long without an answer may take as long again until it shows the execution.
            lost = time.monotonic()
            self._too_late[job.id, job.attempts] = lost + (lost - sent) + self._settings.lost_start_wait
            raise
        return str(execution)

    def find_start(self, job: Job, others: Iterable[str]) -> str | None:
        """List the job's executions: one more than were counted before the start is the one that was started."""
        job_id, before = _read_mark(job)
        try:
            rows = self._executions_of(job_id)
        except (NotThere, Refused) as exc:
            raise StartLost(f"the engine no longer tells of its executions: {exc}", may_run=True) from exc
        if len(rows) < before:
            told = f"the engine shows {len(rows)} executions of the job, before the start it showed {before}"
            raise StartLost(told, may_run=True)
        known = set(others)
        candidates = [execution for row in rows[before:] if (execution := str(row["executionId"])) not in known]
        if len(candidates) > 1:
            raise StartLost(f"executions {', '.join(candidates[:5])} were all started meanwhile", may_run=True)
        if candidates:
            return candidates[0]
        if not self._is_too_late(job):
            raise EngineDown("the engine does not show the start yet")
        return None

    def _executions_of(self, job_id: int) -> list[Row]:
        """List all executions of a masking job that there ever were, oldest first."""
        listed = list(self._client.pages("/executions", job_id=job_id))
        if not all(type(row.get("executionId")) is int and type(row.get("jobId")) is int for row in listed):
            raise EngineDown("GET /executions: an execution without proper ids")
        rows = [row for row in listed if row["jobId"] == job_id]  # it may not know the filter
        return sorted(rows, key=lambda row: int(row["executionId"]))

    def _is_too_late(self, job: Job) -> bool:
        """Tell whether a lost start, had it arrived, would be shown by now."""
        moment = self._too_late.get((job.id, job.attempts))
        if moment is not None:
            return time.monotonic() >= moment
        # Another process lost it, and nobody knows when: it had all the time that a start may take.
        return surely_seconds_since(job.starting_tick or "") >= self._settings.crashed_start_wait

    def forget(self, job: Job) -> None:
        """Drop when its start was lost."""
        self._too_late.pop((job.id, job.attempts), None)

    def check(self, jobs: Sequence[Job]) -> Mapping[int, State]:
        """List what runs; ask singly only for what is not on the list."""
        listed = self._list("RUNNING")
        if self._waits:
            listed |= self._list("QUEUED")
        found: dict[int, State] = {}
        for job in jobs:
            try:
                state = self._check_lost(job, jobs) if job.execution is None else self._check(job, listed)
            except EngineDown as exc:
                self.describe()  # raises where it is not about this job alone
                state = exc
            found[job.id] = state
        current = {job.execution for job in jobs}
        self._waits &= {row for row in self._waits if row in current}
        return found

    def _check(self, job: Job, listed: Mapping[str, Row]) -> State:
        execution = job.execution or ""
        row = listed.get(execution) or self._single(execution)
        if row is not None:
            return self._judge(job, row)
        if not _is_unsure_for(job, VANISHED_WAIT):
            return Unsure()
        return Ended(status=JobStatus.FAILED, reason=f"execution {execution} vanished")

    def _check_lost(self, job: Job, jobs: Sequence[Job]) -> State:
        """Tell whether anything runs that a lost start may have become, and that belongs to none of the `jobs`."""
        try:
            job_id, before = _read_mark(job)
            rows = self._executions_of(job_id)
        except StartLost as exc:
            return Ended(status=JobStatus.FAILED, reason=str(exc))
        except (NotThere, Refused) as exc:
            raise EngineDown(str(exc)) from exc
        known = {other.execution for other in jobs}
        for row in rows[before:] if len(rows) >= before else rows:
            status = row.get("status")
            is_over = isinstance(status, str) and status in verdict.ENDED
            if not is_over and str(row["executionId"]) not in known:
                return Running()
        return Ended(status=JobStatus.FAILED) if self._is_too_late(job) else Running()

    def _list(self, status: str) -> dict[str, Row]:
        try:
            rows = list(self._client.pages("/executions", execution_status=status))
        except (NotThere, Refused) as exc:
            raise EngineDown(str(exc)) from exc
        # An engine that does not know the filter would list all there ever were: only what bears the status counts.
        return {str(row.get("executionId")): row for row in rows if row.get("status") == status}

    def _single(self, execution: str) -> Row | None:
        try:
            row = self._client.get(f"/executions/{execution}")
        except NotThere:
            return None
        except Refused as exc:
            raise EngineDown(str(exc)) from exc
        if str(row.get("executionId")) != execution:
            raise EngineDown(f"GET /executions/{execution}: the answer is about something else")
        return row

    def _judge(self, job: Job, row: Row) -> State:
        execution = job.execution or ""
        try:
            job_id, _ = _read_mark(job)
        except StartLost as exc:
            return Ended(status=JobStatus.FAILED, reason=str(exc))
        if row.get("jobId") != job_id:
            what = f"execution {execution} is of job id {ascii_line(row.get('jobId'))} now, not of {job_id}"
            return Ended(status=JobStatus.FAILED, reason=f"{what}: was the engine reinstalled?")
        status = row.get("status")
        if isinstance(status, str) and status in verdict.GOING_ON:
            judged = verdict.running(row)
            if judged.waits:
                self._waits.add(execution)
            else:
                self._waits.discard(execution)
            return judged
        if not isinstance(status, str) or status not in verdict.ENDED:
            if row.get("endTime") is None:
                if not _is_unsure_for(job, ODD_STATUS_WAIT):
                    return Unsure()
                told = f"the engine says {ascii_line(status)} of it, which is not known, for {ODD_STATUS_WAIT:g} s"
                return Ended(status=JobStatus.FAILED, reason=told, may_run_on=True)
        # Where its caller was told already, only its CPU is waited for, and that needs no events.
        return verdict.ended(row, [] if job.ended_at else self._events(execution), job.on_warning)

    def _events(self, execution: str) -> list[Row]:
        try:
            rows = list(self._client.pages("/execution-events", execution_id=execution))
        except (NotThere, Refused) as exc:
            # Without its events nothing goes green.
            raise EngineDown(f"its events cannot be read: {exc}") from exc
        # An engine that does not know the filter lists all events: only what surely is another's does not count.
        return [row for row in rows if type(row.get("executionId")) is not int or str(row["executionId"]) == execution]

    def cancel(self, job: Job) -> None:
        """POST the cancellation."""
        try:
            self._client.post(f"/executions/{job.execution}/cancel", {})
        except (NotThere, Refused) as exc:
            log.info("engine %s: execution %s cannot be cancelled: %s", self.name, job.execution, exc)


def _is_unsure_for(job: Job, seconds: float) -> bool:
    return job.unsure_tick is not None and surely_seconds_since(job.unsure_tick) >= seconds


def _read_mark(job: Job) -> tuple[int, int]:
    job_id, _, total = (job.start_mark or "").partition(":")
    try:
        return int(job_id), int(total)
    except ValueError as exc:
        raise StartLost("it was started when the engine was of another kind") from exc
