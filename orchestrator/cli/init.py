"""`orchestrator init DIR`: everything that a new installation needs."""

from __future__ import annotations

import grp
import os
import shlex
import shutil
import stat
import sys
from importlib.resources import files
from pathlib import Path

import click

from orchestrator.cli.output import json_option, print_json
from orchestrator.errors import UsageError

# What callers must reach is open to the group; what is ours alone is not.
_DIRECTORIES = {"spool": 0o2770, "run": 0o700, "log": 0o700}
# A spool of users who need not trust each other. What is ours in it is made before any of them can make it.
_SHARED = {"spool": 0o3770, "spool/rejected": 0o2750, "spool/.orchestrator": 0o700, "run": 0o700, "log": 0o700}
_FILE = 0o600
_WHY = {
    "spool": "members of {group} drop jobs (770); each removes only its own files (1000, sticky); "
    "files in it are the group's, so that the orchestrator may read them (2000, setgid)",
    "spool/rejected": "members of {group} read why a job file was refused",
    "spool/.orchestrator": "ours alone: claimed job files, lights in the making",
    "run": "ours alone: doorbells, heartbeats, supervisord's socket, the state of commands",
    "log": "ours alone: the output of commands",
    "orchestrator.toml": "ours alone: who may write to it decides what is run",
    "supervisor.conf": "ours alone: the same",
}
_CHECKOUT_PROGRAM = ".venv/bin/orchestrator"  # in supervisor.conf, beside it


@click.command()
@click.argument("directory")
@click.option("--shared", metavar="GROUP", help="A spool for members of GROUP who need not trust each other.")
@json_option
def init(directory: str, shared: str | None, as_json: bool) -> None:
    """Write orchestrator.toml, supervisor.conf and the directories into DIRECTORY; what is there already stays."""
    place = _absolute(directory)
    group = None if shared is None else _group(shared)
    modes = _DIRECTORIES if shared is None else _SHARED
    templates = files("orchestrator.cli") / "templates"
    texts = {
        "orchestrator.toml": (templates / "orchestrator.toml").read_text(encoding="utf-8"),
        "supervisor.conf": _supervisor_conf((templates / "supervisor.conf").read_text(encoding="utf-8"), place),
    }
    # Everything is looked at before anything is written.
    made = [name for name, text in texts.items() if not _is_there(place / name, text)]
    missing = [name for name in modes if not _is_directory(place / name)]
    if group is not None and "spool" not in missing:
        _check_shared(place / "spool", group, shared or "")
    _make_reachable(place)
    for name in made:
        with open(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE), "w", encoding="utf-8") as file:
            file.write(texts[name])
    for name in missing:
        (place / name).mkdir(mode=0o700)
        if group is not None and name == "spool":
            _give_to_group(place / name, group, shared or "")
        (place / name).chmod(modes[name])
        made.append(f"{name}/")
    if as_json:
        print_json({"directory": str(place), "made": made} | ({} if shared is None else {"group": shared}))
    else:
        command = f"orchestrator --config {shlex.quote(str(place / 'orchestrator.toml'))} up"
        told = [f"{place}: {' '.join(made) or 'all there'}"]
        if shared is not None:
            told += _explained(place, [*texts, *modes], shared)
        told += ["next: edit orchestrator.toml, then run", f"  {command}"]
        click.echo(os.fsencode("\n".join(told)))  # a path may be other than UTF-8


def _group(name: str) -> int:
    """Find the id of a group that we may give a directory to. Raises UsageError."""
    try:
        group = grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise UsageError(f"--shared: there is no group {name!r}: make it with `groupadd`, or choose another") from None
    if os.geteuid() != 0 and group not in {os.getegid(), *os.getgroups()}:
        raise UsageError(
            f"--shared: uid {os.geteuid()} is not in group {name}, and so cannot give it the spool: "
            "have root add it (`usermod -aG`), and log in anew"
        )
    return group


def _check_shared(spool: Path, group: int, name: str) -> None:
    """Check that a spool that is there is shared already: what is there is not changed. Raises UsageError."""
    found = spool.stat()
    if (found.st_gid, stat.S_IMODE(found.st_mode)) != (group, _SHARED["spool"]):
        quoted = shlex.quote(str(spool))
        raise UsageError(
            f"--shared: {spool} is there already, with mode {stat.S_IMODE(found.st_mode):o}: make it one with "
            f"`chgrp {shlex.quote(name)} {quoted} && chmod {_SHARED['spool']:o} {quoted}`"
        )


def _give_to_group(directory: Path, group: int, name: str) -> None:
    try:
        os.chown(directory, -1, group)
    except OSError as exc:
        raise UsageError(f"--shared: {directory} cannot be given to group {name}: {exc.strerror}") from exc


def _explained(place: Path, names: list[str], group: str) -> list[str]:
    """Say for each file and directory who may do what, and why."""
    lines = []
    for name in names:
        mode = stat.S_IMODE((place / name).stat().st_mode)
        lines.append(f"  {mode:04o}  {name}: {_WHY[name].format(group=group)}")
    return lines


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
