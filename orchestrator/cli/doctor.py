"""`orchestrator doctor` and `orchestrator recover --dry-run`: looking an installation over, and changing nothing."""

from __future__ import annotations

from dataclasses import asdict

import click

from orchestrator.cli.output import json_option, print_json
from orchestrator.errors import OrchestratorError, SettingsError, UsageError
from orchestrator.job import ascii_line
from orchestrator.settings import find_settings, load_settings


@click.command()
@click.option("--strict", is_flag=True, help="A WARN gives exit status 1 too.")
@click.option(
    "--timeout", metavar="SECONDS", default=10.0, show_default=True, type=click.FloatRange(0.1, 3600),
    help="How long engines and spools have to answer.",
)  # fmt: skip
@json_option
@click.pass_context
def doctor(ctx: click.Context, strict: bool, timeout: float, as_json: bool) -> None:
    """Look the installation over, and say what to do. Exit status 1 where a line is FAIL.

    It changes nothing, and may run at any time, beside running programs or without them.
    """
    from orchestrator.doctor.examine import examine
    from orchestrator.doctor.finding import Level, fail

    try:
        found = examine(find_settings(ctx.find_root().obj), timeout)
    except SettingsError as exc:
        found = [fail("settings", str(exc), "say where the settings are")]
    levels = [finding.level for finding in found]
    worst = next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)
    if as_json:
        print_json({"status": worst, "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            advice = f" -> {finding.advice}" if finding.advice else ""
            click.echo(ascii_line(f"{finding.level:4}  {finding.subject}: {finding.found}{advice}"))
        click.echo(", ".join(f"{levels.count(level)} {level}" for level in Level))
    ctx.exit(1 if worst is Level.FAIL or (strict and worst is Level.WARN) else 0)


@click.command()
@click.option("--dry-run", is_flag=True, help="Needed: only list.")
@json_option
@click.pass_context
def recover(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """List what the next start of the programs would mend. It changes nothing: a start mends by itself."""
    if not dry_run:
        raise UsageError("a start of the programs recovers by itself; --dry-run lists what it would do")
    from orchestrator.doctor.recover import mends

    found = mends(load_settings(find_settings(ctx.find_root().obj), look_only=True))
    if as_json:
        print_json([asdict(mend) for mend in found])
    else:
        for mend in found:
            click.echo(ascii_line(f"{mend.what}: {mend.which}: {mend.then}"))
        if not found:
            click.echo("nothing to mend")
    if any(mend.what == "unseen" for mend in found):
        raise OrchestratorError("not all could be looked at: run it as the user who runs the programs")
