"""`up`, `watch`, `schedule`, and what cron runs: `scheduler --once`, `checkstatus --once`."""

from __future__ import annotations

import click

from orchestrator.cli.settings import open_store, settings_of


@click.command()
@click.pass_context
def up(ctx: click.Context) -> None:
    """Run everything in one process, until SIGTERM."""
    from orchestrator.daemon import run_daemon, up_parts

    run_daemon(settings_of(ctx), up_parts)


@click.command()
@click.option("--once", is_flag=True, help="Take what lies in the spools now, and end.")
@click.pass_context
def watch(ctx: click.Context, once: bool) -> None:
    """Watch the spools: job files become rows of QUEUE."""
    from orchestrator.daemon import ring_schedule, run_daemon, watch_once, watch_parts

    if not once:
        run_daemon(settings_of(ctx), watch_parts)
        return
    settings = open_store(ctx)
    taken, served = watch_once(settings)
    click.echo(f"{taken} taken")
    ring_schedule(settings)
    if not served:
        ctx.exit(1)


@click.command()
@click.option("--once", is_flag=True, help="Place, start, check and release once, and end.")
@click.pass_context
def schedule(ctx: click.Context, once: bool) -> None:
    """Place, start, check and release jobs."""
    from orchestrator.daemon import checkstatus_once, run_daemon, schedule_once, schedule_parts

    if not once:
        run_daemon(settings_of(ctx), schedule_parts)
        return
    settings = open_store(ctx)
    checkstatus_once(settings)
    schedule_once(settings)
    checkstatus_once(settings)


@click.command()
@click.option("--once", is_flag=True, required=True, help="Place waiting jobs on free CPUs, and end.")
@click.pass_context
def scheduler(ctx: click.Context, once: bool) -> None:
    """Place waiting jobs once, for cron."""
    from orchestrator.daemon import schedule_once

    schedule_once(open_store(ctx))


@click.command()
@click.option("--once", is_flag=True, required=True, help="Start what was placed, check what runs, release, and end.")
@click.pass_context
def checkstatus(ctx: click.Context, once: bool) -> None:
    """Start, check and release once, for cron."""
    from orchestrator.daemon import checkstatus_once

    if not checkstatus_once(open_store(ctx)):
        ctx.exit(1)
