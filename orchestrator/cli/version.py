"""`orchestrator version`."""

from __future__ import annotations

import platform

import click

from orchestrator import __version__
from orchestrator.cli.output import json_option, print_json


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    found = {"orchestrator": __version__, "python": platform.python_version()}
    if as_json:
        print_json(found)
    else:
        click.echo(f"orchestrator {__version__} (Python {platform.python_version()})")
