"""What commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from orchestrator.errors import UsageError
from orchestrator.job import Job, ascii_line

JOB_FIELDS = (
    "id", "name", "spool", "job", "environment", "command", "priority", "status", "engine", "cpu", "execution",
    "attempts", "submitted_at", "started_at", "ended_at", "released_at", "exit", "reason", "rows_masked", "rows_total",
)  # fmt: skip


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def help_without_command(ctx: click.Context) -> None:
    """Show a group's help, as for wrong usage, where no command of it was given."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(UsageError.exit_status)


def discard_output() -> None:
    """Let a stdout go that takes nothing: else the interpreter would try once more at its end, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def print_json(value: object) -> None:
    """Print JSON, readable by people too."""
    click.echo(json.dumps(value, indent=2))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns; what is not known is `-`, and nothing in it can hurt a terminal."""
    cells = [list(heads), *([("-" if cell is None else ascii_line(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def job_as_json(job: Job) -> dict[str, Any]:
    """Give a job's public fields, under the names that scripts rely on."""
    return {field: getattr(job, field) for field in JOB_FIELDS}
