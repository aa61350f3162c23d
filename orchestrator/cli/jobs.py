"""`jobs`, `show`, `cancel`, `hold`, `release`."""

from __future__ import annotations

import contextlib

import click

from orchestrator.cli.output import job_as_json, json_option, print_json, print_table
from orchestrator.cli.settings import open_store
from orchestrator.errors import OrchestratorError
from orchestrator.job import Job, ascii_line
from orchestrator.state import JobStatus

HIGHEST = 2**63 - 1  # of SQLite's numbers
_COLUMNS = ("id", "name", "status", "priority", "engine", "cpu", "attempts", "submitted_at", "reason")


@click.command()
@click.option("--active", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="The latest so many.")
@json_option
@click.pass_context
def jobs(ctx: click.Context, active: bool, limit: int, as_json: bool) -> None:
    """List jobs, oldest first."""
    open_store(ctx)
    from orchestrator.store.views import list_jobs

    found = list_jobs(ended_too=not active, limit=min(limit, HIGHEST))
    if as_json:
        print_json([job_as_json(job) for job in found])
    else:
        print_table([column.upper() for column in _COLUMNS], [[getattr(job, c) for c in _COLUMNS] for job in found])


@click.command()
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show one job, by NAME or id, and its story."""
    open_store(ctx)
    from orchestrator.store.views import events_of

    job = _find(name)
    if as_json:
        print_json(job_as_json(job))
        return
    for field, value in job_as_json(job).items():
        if value is not None:
            click.echo(f"{field:12} {ascii_line(value)}")
    if job.detail:
        # Set in, so that no line of an engine's passes for one of the fields.
        click.echo("\n".join(f"    {ascii_line(line)}" for line in job.detail.splitlines()))
    click.echo()
    print_table(
        ("AT", "WHAT", "WHERE", "WHY"),
        [
            (event["at"], event["move"], " ".join(filter(None, (event["engine"], event["cpu"]))) or None, event["why"])
            for event in events_of(job.id)
        ],
    )


@click.command()
@click.argument("name")
@json_option
@click.pass_context
def cancel(ctx: click.Context, name: str, as_json: bool) -> None:
    """Cancel a job, by NAME or id: a waiting one at once, a running one on its engine."""
    settings = open_store(ctx)
    from orchestrator.daemon import ring_schedule
    from orchestrator.store.taking import ask_end

    job = _find(name)
    if not ask_end(job.id, JobStatus.CANCELLED, "cancelled by an operator"):
        raise OrchestratorError(f"job {job.id} ({job.name}) has ended, or is being cancelled already: {job.status}")
    ring_schedule(settings)
    _print_again(job, as_json)


@click.command()
@click.argument("name")
@json_option
@click.pass_context
def hold(ctx: click.Context, name: str, as_json: bool) -> None:
    """Set a waiting job aside."""
    open_store(ctx)
    from orchestrator.store.placing import hold as hold_job

    job = _find(name)
    if not hold_job(job.id):
        raise OrchestratorError(f"job {job.id} ({job.name}) does not wait: it is {job.status}")
    _print_again(job, as_json)


@click.command()
@click.argument("name")
@json_option
@click.pass_context
def release(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let a job that was set aside wait for a CPU again."""
    settings = open_store(ctx)
    from orchestrator.daemon import ring_schedule
    from orchestrator.store.placing import unhold

    job = _find(name)
    if not unhold(job.id):
        raise OrchestratorError(f"job {job.id} ({job.name}) is not held: it is {job.status}")
    ring_schedule(settings)
    _print_again(job, as_json)


def _find(name: str) -> Job:
    from orchestrator.store.views import find_job

    job = None
    with contextlib.suppress(UnicodeEncodeError, OverflowError):  # bytes or a number that no row can have
        job = find_job(name)
    if job is None:
        raise OrchestratorError(f"no job {name}: see `orchestrator jobs`")
    return job


def _print_again(job: Job, as_json: bool) -> None:
    from orchestrator.store.views import job_by_id

    job = job_by_id(job.id) or job
    if as_json:
        print_json(job_as_json(job))
    else:
        click.echo(f"job {job.id} ({job.name}): {job.status}" + (f", {job.ending} asked" if job.ending else ""))
