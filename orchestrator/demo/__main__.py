"""`python -m orchestrator.demo`, or `make demo`: eight callers get what they should, or it exits with 1."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from subprocess import Popen

import click

from orchestrator.demo.board import heads, line
from orchestrator.demo.callers import CALLERS, GREEN, HERE, Caller, Outcome, outcome_of, reason_of
from orchestrator.demo.processes import Ending, Interrupted, Processes
from orchestrator.demo.stage import ENGINES, Stage
from orchestrator.errors import OrchestratorError

LIMIT = 50.0  # seconds until callers that still wait are given up
APART = 0.3  # seconds between two callers
BETWEEN = 1.0  # seconds between two lines about the queue


@click.command()
@click.option("--seconds", default=4.0, show_default=True, type=click.FloatRange(2.0, 20.0), help="How long jobs take.")
def demo(seconds: float) -> None:
    """Run eight callers against two simulated engines, and compare what they get with what they should."""
    ending = Ending()
    if shutil.which("bash") is None:
        raise click.ClickException("bash is missing: the callers are bash scripts")
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-demo."))
    keep = True
    try:
        with Processes(ending) as processes:
            keep = not _play(Stage(directory, processes), processes, ending, seconds)
    except Interrupted as exc:
        keep = False
        click.echo(f"\n{exc}: all is stopped and removed", err=True)
        sys.exit(exc.exit_status)
    except OrchestratorError as exc:
        click.echo(f"demo: {exc}", err=True)
    finally:
        if keep:
            click.echo(f"kept, to see what happened: {directory} (its logs are in {directory / 'log'})", err=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(1 if keep else 0)


def _play(stage: Stage, processes: Processes, ending: Ending, seconds: float) -> bool:
    """Run all of it; whether everybody got what they should."""
    from orchestrator.settings import load_settings
    from orchestrator.store.database import close_database, open_database
    from orchestrator.store.views import count_by_status

    cpus = " and ".join(f"{engine.name} ({engine.cpus} CPUs)" for engine in ENGINES)
    click.echo(f"Two simulated masking engines, {cpus}, whose jobs take {seconds:g} s; and `orchestrator up`.")
    stage.start_engines(seconds)
    stage.start_orchestrator(stage.log / "orchestrator.log")
    click.echo("Eight callers, each a bash process (orchestrator/demo/*.bash) that waits on its light:\n")
    for number, caller in enumerate(CALLERS, 1):
        click.echo(f"  {number}  {caller.script:20} {caller.job:13} {caller.tells}")
    open_database(load_settings(stage.settings).database)
    try:
        outcomes = _watch(stage, processes, ending)
        queue = count_by_status()
    finally:
        close_database()
    return _compare(outcomes, queue)


def _watch(stage: Stage, processes: Processes, ending: Ending) -> list[Outcome]:
    """Start the callers one by one, show the queue until all have ended."""
    callers: list[tuple[Caller, Popen[bytes], Path]] = []
    shown, due = "", 0.0
    click.echo(f"\n{heads()}")
    began = time.monotonic()
    while True:
        now = time.monotonic() - began
        if len(callers) < len(CALLERS) and now >= len(callers) * APART:
            caller, log = CALLERS[len(callers)], stage.log / f"caller{len(callers) + 1}.log"
            command = ["bash", str(HERE / caller.script), caller.job]
            callers.append((caller, processes.start(command, log, {"ORCHESTRATOR_SPOOL": str(stage.spool)}), log))
        ended = len(callers) == len(CALLERS) and all(process.poll() is not None for _, process, _ in callers)
        if ended or now >= due:
            due += BETWEEN
            text = line()
            if text != shown:
                click.echo(f"  {now:3.0f} s {text}")
                shown = text
        if ended or now > LIMIT:
            return [outcome_of(*each) for each in callers]
        ending.sleep()


def _compare(outcomes: list[Outcome], queue: dict[str, int]) -> bool:
    """Show what each caller got beside what it should have got, and QUEUE beside both; whether all is right."""
    click.echo(f"\n     {'caller':20} {'job':13} {'exit, light':16} {'should be':16} why not green")
    for number, outcome in enumerate(outcomes, 1):
        caller = outcome.caller
        status = "waits" if outcome.status is None else outcome.status
        got, should = f"{status} {outcome.light or '?'}", f"{caller.status} {caller.light}"
        mark = " " if outcome.right else "!"
        why = reason_of(outcome.said) or ("" if outcome.right else outcome.said)
        click.echo(f"  {number} {mark} {caller.script:20} {caller.job:13} {got:16} {should:16} {why}".rstrip())
    wrong = sum(not outcome.right for outcome in outcomes)
    if wrong:
        click.echo(f"\n{wrong} of {len(outcomes)} got something else than they should.")
        return False
    told = ", ".join(f"{count} {status}" for status, count in sorted(queue.items()))
    if queue != Counter(_status_in_queue(outcome.caller) for outcome in outcomes):
        click.echo(f"\nAll {len(outcomes)} got what they should, but QUEUE says otherwise: {told}.")
        return False
    click.echo(f"\nAll {len(outcomes)} got what they should, and QUEUE says the same: {told}.")
    return True


def _status_in_queue(caller: Caller) -> str:
    return "FINISHED" if caller.light == GREEN else caller.light


if __name__ == "__main__":
    demo()
