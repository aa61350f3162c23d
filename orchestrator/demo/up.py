"""`python -m orchestrator.demo.up`, or `make up`: the demo's engines and `orchestrator up`, to be played with."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen

import click

from orchestrator.cli.init import this_program
from orchestrator.demo.callers import HERE
from orchestrator.demo.processes import DemoError, Ending, Interrupted, Processes
from orchestrator.demo.stage import Stage
from orchestrator.errors import OrchestratorError

DIRECTORY = "demo-run"


@click.command()
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0.0), help="How long jobs take.")
def up(seconds: float) -> None:
    """Run simulated engines and `orchestrator up` in ./demo-run/ until Ctrl-C."""
    ending = Ending()
    directory = Path(DIRECTORY).absolute()
    directory.mkdir(exist_ok=True)
    try:
        with (directory / ".lock").open("w") as lock, Processes(ending) as processes:
            _take(lock.fileno(), directory)
            stage = Stage(directory, processes)
            programs: Mapping[str, Popen[bytes]] = {
                **stage.start_engines(seconds),
                "orchestrator up": stage.start_orchestrator(None),
            }
            click.echo(_what_to_try(stage, seconds))
            while True:
                for name, process in programs.items():
                    if process.poll() is not None:
                        raise DemoError(f"{name} has ended with {process.returncode}: see {stage.log}")
                ending.sleep()
    except Interrupted:
        click.echo(f"all is stopped; {directory} stays as it is")
    except OrchestratorError as exc:
        click.echo(f"up: {exc}", err=True)
        sys.exit(exc.exit_status)


def _take(lock: int, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise DemoError(f"another `make up` runs in {directory}: end it first") from exc


def _what_to_try(stage: Stage, seconds: float) -> str:
    paths = (HERE.parent / "orchestrator.bash", stage.spool, stage.settings, Path(this_program()))
    client, spool, settings, program = (shlex.quote(_short(path)) for path in paths)
    return f"""
Up, with two simulated engines whose jobs take {seconds:g} s. From a second shell, here:

  bash {client} --spool {spool} MASK_CRM; echo $?
  touch {spool}/MASK_BROKEN.job; sleep {seconds + 2:g}; cat {spool}/MASK_BROKEN.trafficlight
  {program} --config {settings} status

Ctrl-C ends all.
"""


def _short(path: Path) -> str:
    here = f"{os.getcwd()}{os.sep}"
    return str(path).removeprefix(here)


if __name__ == "__main__":
    up()
