"""`orchestrator submit`: a caller without bash."""

from __future__ import annotations

import signal

import click

from orchestrator.cli.settings import settings_of
from orchestrator.errors import UsageError
from orchestrator.settings import Settings, SpoolSettings


@click.command()
@click.option("-s", "--spool", metavar="NAME", help="The spool's name in the settings; needed where there are several.")
@click.option("--wait", is_flag=True, help="Wait for the end, and exit as orchestrator.bash does.")
@click.argument("job")
@click.argument("pairs", nargs=-1, metavar="[key=value ...]")
@click.pass_context
def submit(ctx: click.Context, spool: str | None, wait: bool, job: str, pairs: tuple[str, ...]) -> None:
    """Drop a job file for JOB and print its NAME."""
    from orchestrator.spool.caller import drop, wait_for_light, withdraw

    path = _spool(settings_of(ctx), spool).path
    name = drop(path, job, pairs)
    click.echo(name)
    if not wait:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        status, text = wait_for_light(path, name)
    except _Interrupted as exc:
        withdraw(path, name)
        ctx.exit(128 + exc.number)
    click.echo(text, err=True, nl=False)
    ctx.exit(status)


class _Interrupted(Exception):  # noqa: N818 - not an error
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, _frame: object) -> None:
    raise _Interrupted(number)


def _spool(settings: Settings, name: str | None) -> SpoolSettings:
    if name is None and len(settings.spools) == 1:
        return next(iter(settings.spools.values()))
    if name is None and "default" in settings.spools:
        return settings.spools["default"]
    if name is None or name not in settings.spools:
        raise UsageError(f"no spool {name!r}: give --spool, one of {', '.join(settings.spools)}")
    return settings.spools[name]
