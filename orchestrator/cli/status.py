"""`orchestrator status`: is all well, in one look."""

from __future__ import annotations

import time
from typing import Any

import click

from orchestrator.cli.engine import engines_as_json
from orchestrator.cli.output import json_option, print_json, print_table
from orchestrator.cli.settings import checked_settings_of, open_database
from orchestrator.settings import SpoolSettings


@click.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show the queue, the engines and the spools. Exit status 1 where a spool is not served."""
    settings = checked_settings_of(ctx)
    open_database(settings)
    from orchestrator.store.views import count_by_status

    spools = [_spool_as_json(spool) for spool in settings.spools.values()]
    found: dict[str, Any] = {"jobs": count_by_status(), "engines": engines_as_json(settings), "spools": spools}
    if as_json:
        print_json(found)
    else:
        print_table(("JOBS", "STATUS"), [(count, name) for name, count in found["jobs"].items()])
        click.echo()
        print_table(
            ("ENGINE", "STATE", "BUSY", "CPUS", "WHY"),
            [
                (
                    each["engine"], each["state"],
                    sum(cpu["status"] != "FREE" for cpu in each["cpus"]), len(each["cpus"]), each["reason"],
                )
                for each in found["engines"]
            ],
        )  # fmt: skip
        click.echo()
        print_table(
            ("SPOOL", "SERVED", "PATH"),
            [(each["spool"], "yes" if each["served"] else "NO", each["path"]) for each in spools],
        )
    ctx.exit(0 if all(each["served"] for each in spools) else 1)


def _spool_as_json(spool: SpoolSettings) -> dict[str, Any]:
    from orchestrator.spool.caller import HEARTBEAT_STALE
    from orchestrator.spool.directory import HEARTBEAT

    try:
        age = time.time() - (spool.path / HEARTBEAT).stat().st_mtime
    except OSError:
        age = None
    served = age is not None and age < HEARTBEAT_STALE
    return {"spool": spool.name, "path": str(spool.path), "served": served, "heartbeat_age": age and round(age, 1)}
