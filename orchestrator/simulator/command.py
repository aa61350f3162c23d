"""`orchestrator simulate-engine`: a simulated masking engine until somebody ends it."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orchestrator.simulator.server import Simulator

USAGE = 64
UNAVAILABLE = 69
IO_ERROR = 74
_HIGHEST_FIRST_ID = 2_000_000_000  # leaves room for executions below 2**31


class _OneLine(click.ClickException):
    """A wrong option or file, shown as one line."""

    exit_code = USAGE

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"simulate-engine: {self.message}", file=file, err=file is None)


class _NoPort(_OneLine):
    exit_code = UNAVAILABLE


class _NoOutput(_OneLine):
    exit_code = IO_ERROR


class _Command(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _OneLine(error.format_message()) from None


def _seconds(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{value} is not a number of seconds from 0 on")
    return value


def _seconds_above_zero(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value} is not a number of seconds above 0")
    return value


@click.command("simulate-engine", cls=_Command)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0: any free one.")
@click.option("--user", default="admin", show_default=True, help="Who may log in.")
@click.option("--password", default="admin", show_default=True, help="The password that goes with it.")
@click.option("--cpus", type=click.IntRange(1), default=7, show_default=True, help="Jobs that run at once.")
@click.option("--memory", type=click.IntRange(1), default=16384, show_default=True, help="MB, for all jobs.")
@click.option("--seconds", type=float, callback=_seconds, default=5.0, show_default=True, help="Of a job.")
@click.option("--jobs", type=click.Path(path_type=Path), metavar="FILE", help="TOML: environments and jobs.")
@click.option(
    "--token-life",
    type=float,
    callback=_seconds_above_zero,
    metavar="SECONDS",
    help="How long a token lives after its last use; left out: forever.",
)
@click.option(
    "--first-id",
    type=click.IntRange(1, _HIGHEST_FIRST_ID),
    default=1,
    show_default=True,
    help="Of environments, jobs, executions.",
)
@click.option("--fault", "faults", multiple=True, metavar="NAME[=VALUE]", help="Misbehave; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON, in one line.")
def simulate_engine(
    *,
    port: int,
    user: str,
    password: str,
    cpus: int,
    memory: int,
    seconds: float,
    jobs: Path | None,
    token_life: float | None,
    first_id: int,
    faults: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve a simulated masking engine on 127.0.0.1 until SIGTERM or SIGINT."""
    from orchestrator.simulator.catalogue import CatalogueError
    from orchestrator.simulator.faults import FaultError, fault_from_text
    from orchestrator.simulator.server import ADDRESS, Simulator

    try:
        simulator = Simulator(
            seconds=seconds,
            cpus=cpus,
            user=user,
            password=password,
            first_id=first_id,
            port=port,
            token_life=token_life,
            jobs=jobs,
            memory=memory,
        )
        simulator.fault(**dict(map(fault_from_text, faults)))
    except (CatalogueError, FaultError) as error:
        raise _OneLine(str(error)) from None
    # Blocked before any thread starts and then waited for: no handler can run into a lock that is held.
    ends = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        _start(simulator, f"{ADDRESS}:{port}")
        try:
            _tell(json.dumps({"url": simulator.url}) if as_json else f"listening on {simulator.url}")
            signal.sigwait(ends)
        finally:
            simulator.stop()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(simulator: Simulator, address: str) -> None:
    try:
        simulator.start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise _NoPort(f"cannot listen on {address}: {reason}") from None


def _tell(line: str) -> None:
    try:
        click.echo(line)  # which flushes
    except OSError as error:
        # Else the interpreter would try once more at its end, and fail with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _NoOutput(f"cannot write to stdout: {error.strerror or error}") from None
