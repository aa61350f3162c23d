"""`orchestrator init DIR`: everything that a new installation needs."""

from __future__ import annotations

import os
import shlex
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
@click.argument("directory")
@json_option
def init(directory: str, as_json: bool) -> None:
    """Write orchestrator.toml, supervisor.conf and the directories into DIRECTORY; what is there already stays."""
    place = _absolute(directory)
    templates = files("orchestrator.cli") / "templates"
    texts = {
        "orchestrator.toml": (templates / "orchestrator.toml").read_text(encoding="utf-8"),
        "supervisor.conf": _supervisor_conf((templates / "supervisor.conf").read_text(encoding="utf-8"), place),
    }
    # Everything is looked at before anything is written.
    made = [name for name, text in texts.items() if not _is_there(place / name, text)]
    missing = [name for name in _DIRECTORIES if not _is_directory(place / name)]
    _make_reachable(place)
    for name in made:
        with (place / name).open("x", encoding="utf-8") as file:
            file.write(texts[name])
    for name in missing:
        (place / name).mkdir()
        (place / name).chmod(_DIRECTORIES[name])
        made.append(f"{name}/")
    if as_json:
        print_json({"directory": str(place), "made": made})
    else:
        command = f"orchestrator --config {shlex.quote(str(place / 'orchestrator.toml'))} up"
        told = f"{place}: {' '.join(made) or 'all there'}\nnext: edit orchestrator.toml, then run\n  {command}"
        click.echo(os.fsencode(told))  # a path may be other than UTF-8


def _absolute(directory: str) -> Path:
    if not directory:
        raise UsageError("DIRECTORY is empty")
    try:
        return Path(directory).absolute()
    except FileNotFoundError:
        raise UsageError("the current directory is gone: give an absolute path") from None


def _is_directory(path: Path) -> bool:
    """Tell whether the directory is there. Raises UsageError where something else is in its place."""
    if not path.is_dir() and os.path.lexists(path):
        raise UsageError(f"{path} is no directory: choose another place")
    return path.is_dir()


def _make_reachable(directory: Path) -> None:
    """Make the directory, and those above it; callers pass through them to the spool, whatever the umask is."""
    missing = [each for each in (directory, *directory.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir()
        each.chmod(0o755)


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
