"""`orchestrator submit`: a caller without bash."""

from __future__ import annotations

import contextlib
import logging
import signal
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import discard_output, json_option, print_json
from orchestrator.cli.settings import settings_of
from orchestrator.errors import UsageError
from orchestrator.settings import Settings, SpoolSettings

if TYPE_CHECKING:
    from orchestrator.spool.caller import Caller

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("-s", "--spool", metavar="NAME", help="The spool's name in the settings; needed where there are several.")
@click.option("--wait", is_flag=True, help="Wait for the end, and exit as orchestrator.bash does.")
@json_option
@click.argument("job")
@click.argument("pairs", nargs=-1, metavar="[key=value ...]")
@click.pass_context
def submit(
    ctx: click.Context, *, spool: str | None, wait: bool, as_json: bool, job: str, pairs: tuple[str, ...]
) -> None:
    """Drop a job file for JOB and print its NAME."""
    from orchestrator.spool.caller import Caller

    path = _spool(settings_of(ctx), spool).path
    with Caller(path) as caller:
        if wait:
            ctx.exit(_submit_and_wait(caller, job, pairs, as_json))
        # Printed before anybody can take the job: one whose NAME nobody gets to know does not run.
        caller.drop(job, pairs, lambda name: print_json({"name": name}) if as_json else click.echo(name))


def _submit_and_wait(caller: Caller, job: str, pairs: tuple[str, ...], as_json: bool) -> int:
    """Drop a job and wait for its end; the exit status, which nothing that cannot be printed changes."""
    from orchestrator.spool.caller import SpoolNotServed, Verdict

    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a submission is not cut in two
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    name = caller.drop(job, pairs)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if not as_json:
            _print_if_possible(name)
        verdict = caller.wait(name)
    except _Interrupted as exc:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        log.warning("got %s: %s", signal.Signals(exc.number).name.removeprefix("SIG"), caller.withdraw(name))
        verdict = Verdict(128 + exc.number, None)
    except SpoolNotServed as exc:
        log.error("%s", exc)
        verdict = Verdict(exc.exit_status, None)
    with contextlib.suppress(OSError):
        click.echo(verdict.light or "", err=True, nl=False)
    if as_json:
        _print_if_possible({"name": name, "status": verdict.status, "light": verdict.first_line})
    return verdict.status


def _print_if_possible(what: str | dict[str, object]) -> None:
    try:
        if isinstance(what, str):
            click.echo(what)
        else:
            print_json(what)
    except OSError:
        discard_output()


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
