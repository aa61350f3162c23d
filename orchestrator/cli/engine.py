"""`orchestrator engine ...`: capacity and health of the engines."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.output import help_without_command, json_option, print_json, print_table
from orchestrator.cli.settings import open_store, settings_of
from orchestrator.errors import EngineError, UsageError
from orchestrator.settings import Settings
from orchestrator.state import CpuStatus, EngineState


@click.group(invoke_without_command=True)
@click.pass_context
def engine(ctx: click.Context) -> None:
    """List, add, remove, drain, resume and test engines."""
    help_without_command(ctx)


@engine.command("list")
@json_option
@click.pass_context
def list_engines(ctx: click.Context, as_json: bool) -> None:
    """List engines with their state and CPUs."""
    found = engines_as_json(open_store(ctx))
    if as_json:
        print_json(found)
        return
    print_table(
        ("ENGINE", "KIND", "STATE", "FREE", "CPUS", "WHY"),
        [
            (
                each["engine"], each["kind"], each["state"],
                sum(cpu["status"] == "FREE" for cpu in each["cpus"]), len(each["cpus"]), each["reason"],
            )
            for each in found
        ],
    )  # fmt: skip


def engines_as_json(settings: Settings) -> list[dict[str, Any]]:
    """Give each engine of the settings or of ENGINES, under the names that scripts rely on."""
    from orchestrator.store.engines import engine_states
    from orchestrator.store.views import cpus_of_engines

    cpus, states = cpus_of_engines(), engine_states()
    found = []
    for name in dict.fromkeys([*settings.engines, *cpus]):
        known = settings.engines.get(name)
        state, reason = states.get(name, (EngineState.UNKNOWN, None))
        if known is None:
            state, reason = EngineState.UNKNOWN, f"ENGINES has it, {settings.file} does not: it gets nothing"
        stray = [f"{cpu['cpu']} has status {cpu['status']!r}" for cpu in cpus.get(name, []) if _is_stray(cpu["status"])]
        if stray:
            told = f"{', '.join(stray)}, which is never used: make it FREE"
            reason = f"{reason}; {told}" if reason else told
        found.append(
            {
                "engine": name,
                "kind": known.kind if known else None,
                "state": state.value,
                "reason": reason,
                "cpus": cpus.get(name, []),
            }
        )
    return found


def _is_stray(status: str | None) -> bool:
    return status not in list(CpuStatus)


@engine.command()
@click.argument("name")
@click.option("--cpus", default=1, show_default=True, type=click.IntRange(1, 10_000), help="How many CPUs to add.")
@json_option
@click.pass_context
def add(ctx: click.Context, name: str, cpus: int, as_json: bool) -> None:
    """Add CPUs to an engine: at once, also while everything runs."""
    settings = open_store(ctx)
    from orchestrator.daemon import ring_schedule
    from orchestrator.store.engines import add_cpus

    _known(settings, name)
    names = add_cpus(name, cpus)
    ring_schedule(settings)
    _print_result(as_json, {"engine": name, "added": names}, f"{name}: {' '.join(names)} added")


@engine.command()
@click.argument("name")
@click.argument("cpu")
@json_option
@click.pass_context
def remove(ctx: click.Context, name: str, cpu: str, as_json: bool) -> None:
    """Remove one FREE CPU of an engine."""
    open_store(ctx)
    from orchestrator.store.engines import remove_cpu

    try:
        remove_cpu(name, cpu)
    except UnicodeEncodeError:  # bytes that no row can have
        raise UsageError(f"there is no {cpu} of {name}: see `orchestrator engine list`") from None
    _print_result(as_json, {"engine": name, "removed": [cpu]}, f"{name}: {cpu} removed")


@engine.command()
@click.argument("name")
@json_option
@click.pass_context
def drain(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let an engine run empty: it gets no more jobs."""
    _set_draining(ctx, name, True, as_json)


@engine.command()
@click.argument("name")
@json_option
@click.pass_context
def resume(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let a drained engine have jobs again."""
    _set_draining(ctx, name, False, as_json)


def _set_draining(ctx: click.Context, name: str, draining: bool, as_json: bool) -> None:
    settings = open_store(ctx)
    from orchestrator.daemon import ring_schedule
    from orchestrator.store.engines import set_draining

    _known(settings, name)
    set_draining(name, draining)
    ring_schedule(settings)
    _print_result(as_json, {"engine": name, "draining": draining}, f"{name}: {'draining' if draining else 'resumed'}")


@engine.command()
@click.argument("name")
@json_option
@click.pass_context
def test(ctx: click.Context, name: str, as_json: bool) -> None:
    """Ask an engine, with the settings as they are, what it is and what it has."""
    from orchestrator.engines.base import make_engine

    settings = settings_of(ctx)
    made = make_engine(_known(settings, name), settings)
    try:
        description = made.describe()
        made.refresh()
    except EngineError as exc:
        if as_json:
            print_json({"engine": name, "ok": False, "reason": str(exc)})
            ctx.exit(1)
        raise
    finally:
        made.close()
    _print_result(as_json, {"engine": name, "ok": True, "description": description}, f"{name}: {description}")


def _known(settings: Settings, name: str) -> Any:
    if name not in settings.engines:
        raise UsageError(f"no engine {name} in {settings.file}; there are: {', '.join(settings.engines) or 'none'}")
    return settings.engines[name]


def _print_result(as_json: bool, result: dict[str, Any], line: str) -> None:
    if as_json:
        print_json(result)
    else:
        click.echo(line)
