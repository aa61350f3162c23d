"""`up`, `watch`, `schedule`, and what cron runs: `scheduler --once`, `checkstatus --once`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import json_option, print_json
from orchestrator.cli.settings import check_engines, checked_settings_of, open_database, open_store, settings_of
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.daemon import Part
    from orchestrator.settings import Settings


@click.command()
@click.pass_context
def up(ctx: click.Context) -> None:
    """Run everything in one process, until SIGTERM."""
    from orchestrator.daemon import run_daemon, up_parts

    run_daemon(settings_of(ctx), up_parts)


@click.command()
@click.option("--once", is_flag=True, help="Take what lies in the spools now, and end.")
@json_option
@click.pass_context
def watch(ctx: click.Context, once: bool, as_json: bool) -> None:
    """Watch the spools: job files become rows of QUEUE."""
    from orchestrator.daemon import ring_schedule, run_daemon
    from orchestrator.once import watch_once

    if not once:
        _no_json(as_json)
        run_daemon(settings_of(ctx), _checked_watch_parts)
        return
    settings = checked_settings_of(ctx)
    open_database(settings)
    taken, served = watch_once(settings)
    ring_schedule(settings)
    if as_json:
        print_json({"taken": taken})
    else:
        click.echo(f"{taken} taken")
    if not served:
        ctx.exit(1)


def _checked_watch_parts(settings: Settings) -> list[Part]:
    """Give what `watch` runs. It needs no engine, but a job is refused by what the settings say of them."""
    from orchestrator.daemon import watch_parts

    check_engines(settings)
    return watch_parts(settings)


@click.command()
@click.option("--once", is_flag=True, help="Place, start, check and release once, and end.")
@json_option
@click.pass_context
def schedule(ctx: click.Context, once: bool, as_json: bool) -> None:
    """Place, start, check and release jobs."""
    from orchestrator.daemon import run_daemon, schedule_parts
    from orchestrator.once import checkstatus_once, schedule_once

    if not once:
        _no_json(as_json)
        run_daemon(settings_of(ctx), schedule_parts)
        return
    settings = open_store(ctx)
    checkstatus_once(settings)
    engines = schedule_once(settings)
    released = checkstatus_once(settings)
    if as_json:
        print_json({"engines": engines, "released": released})


@click.command()
@click.option("--once", is_flag=True, required=True, help="Place waiting jobs on free CPUs, and end.")
@json_option
@click.pass_context
def scheduler(ctx: click.Context, once: bool, as_json: bool) -> None:
    """Place waiting jobs once, for cron."""
    from orchestrator.once import schedule_once

    engines = schedule_once(open_store(ctx))
    if as_json:
        print_json({"engines": engines})


@click.command()
@click.option("--once", is_flag=True, required=True, help="Start what was placed, check what runs, release, and end.")
@json_option
@click.pass_context
def checkstatus(ctx: click.Context, once: bool, as_json: bool) -> None:
    """Start, check and release once, for cron."""
    from orchestrator.once import checkstatus_once

    released = checkstatus_once(open_store(ctx))
    if as_json:
        print_json({"released": released})
    if not released:
        ctx.exit(1)


def _no_json(as_json: bool) -> None:
    if as_json:
        raise UsageError("--json needs --once: a program that goes on prints nothing")
