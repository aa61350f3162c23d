"""What release reads and writes: ended jobs whose light is still to be changed."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.clock import utc_now
from orchestrator.job import Job
from orchestrator.store.database import writing
from orchestrator.store.models import IS_ACTIVE, IS_UNRELEASED, Queue
from orchestrator.store.moves import record_event
from orchestrator.store.statement import ALL_COLUMNS, Statement, jobs_of, param


def jobs_to_release(host: str) -> list[Job]:
    """Give the ended jobs of this host's spools whose light has not been changed yet."""
    return jobs_of(_TO_RELEASE.rows(host=host))


def ids_to_release(host: str) -> set[int]:
    """Give the ids of what `jobs_to_release` gives."""
    return {job_id for (job_id,) in _IDS_TO_RELEASE.rows(host=host)}


def names_not_released(host: str, spool: str) -> set[str]:
    """Give the NAMEs in a spool whose light is still to be changed, now or when their job ends."""
    return {name for (name,) in _NAMES_NOT_RELEASED.rows(host=host, spool=spool)}


def record_released(done: Sequence[tuple[int, str]]) -> None:
    """Record, in one transaction, of which jobs the light was changed, and how."""
    with writing():
        for job_id, how in done:
            if _RECORD_RELEASED.change(id=job_id, now=utc_now()):
                record_event("released", how, job_id=job_id)


_TO_RELEASE = Statement(
    lambda: Queue.select(*ALL_COLUMNS).where(IS_UNRELEASED, Queue.host == param("host")).order_by(Queue.id)
)
_NAMES_NOT_RELEASED = Statement(
    lambda: Queue.select(Queue.name).where(
        Queue.host == param("host"), Queue.spool == param("spool"), IS_ACTIVE | IS_UNRELEASED
    )
)
_RECORD_RELEASED = Statement(
    lambda: Queue.update({"released_at": param("now")}).where(Queue.id == param("id"), IS_UNRELEASED)
)
_IDS_TO_RELEASE = Statement(lambda: Queue.select(Queue.id).where(IS_UNRELEASED, Queue.host == param("host")))
