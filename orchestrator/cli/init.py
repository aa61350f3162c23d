"""`orchestrator init DIR`: everything that a new installation needs."""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

import click

from orchestrator.cli.output import json_option, print_json
from orchestrator.errors import UsageError

# What callers must reach is open to the group; what is ours alone is not.
_DIRECTORIES = {"spool": 0o2770, "run": 0o711, "log": 0o750}
_CHECKOUT_PROGRAM = ".venv/bin/orchestrator"  # in supervisor.conf, beside it


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@json_option
def init(directory: Path, as_json: bool) -> None:
    """Write orchestrator.toml, supervisor.conf and the directories into DIRECTORY; what is there already stays."""
    directory = directory.absolute()
    templates = files("orchestrator.cli") / "templates"
    texts = {
        "orchestrator.toml": (templates / "orchestrator.toml").read_text(encoding="utf-8"),
        "supervisor.conf": _supervisor_conf((templates / "supervisor.conf").read_text(encoding="utf-8"), directory),
    }
    made = [name for name, text in texts.items() if not _is_there(directory / name, text)]
    directory.mkdir(parents=True, exist_ok=True)
    for name in made:
        with (directory / name).open("x", encoding="utf-8") as file:
            file.write(texts[name])
    for name, mode in _DIRECTORIES.items():
        if not (directory / name).is_dir():
            (directory / name).mkdir()
            (directory / name).chmod(mode)
            made.append(f"{name}/")
    if as_json:
        print_json({"directory": str(directory), "made": made})
    else:
        click.echo(f"{directory}: {' '.join(made) or 'all there'}\nnext: edit orchestrator.toml, then run")
        click.echo(f"  orchestrator --config {directory / 'orchestrator.toml'} up")


def _is_there(path: Path, text: str) -> bool:
    """Tell whether the file is there as it would be written. Raises UsageError where it says something else."""
    try:
        if path.read_text(encoding="utf-8", errors="replace") == text:
            return True
    except FileNotFoundError:
        return False
    except IsADirectoryError:
        pass
    raise UsageError(f"{path} is there already: choose another directory")


def _supervisor_conf(text: str, directory: Path) -> str:
    program = this_program()
    if program == str(directory / _CHECKOUT_PROGRAM):
        return text
    return text.replace(f"%(here)s/{_CHECKOUT_PROGRAM}", program.replace("%", "%%"))


def this_program() -> str:
    """The path of the `orchestrator` that belongs to this Python."""
    beside = Path(sys.executable).with_name("orchestrator")
    return str(beside) if beside.is_file() else shutil.which("orchestrator") or "orchestrator"
