"""The settings file, the secrets and programs that it names, and the client."""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import orchestrator
from orchestrator.doctor.finding import Finding, fail, listed, ok, shell, user, warn
from orchestrator.settings import Settings

CLIENT = "orchestrator.bash"


def check_settings(settings: Settings) -> Iterator[Finding]:
    """See that the settings are ours alone to write: they say which commands are run, and where passwords go."""
    file = settings.file
    subject = "settings"
    status = os.stat(file)
    if status.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
        yield fail(
            subject,
            f"{file}: others than its owner may write it, and so say which commands are run: the programs refuse it",
            f"chmod go-w {shell(file)}",
        )
    else:
        counts = ", ".join(
            f"{len(found)} {name if len(found) != 1 else name[:-1]}"
            for name, found in (
                ("spools", settings.spools), ("engines", settings.engines), ("commands", settings.commands),
            )
        )  # fmt: skip
        yield ok(subject, f"{file}: {counts}")
    folder = os.stat(file.parent).st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        yield fail(
            subject, f"{file.parent}: everybody may replace the settings in it", f"chmod o-w {shell(file.parent)}"
        )
    for key, path in (("run_dir", settings.run_dir), ("log_dir", settings.log_dir)):
        if not path.exists():
            yield warn(subject, f"{key}: {path} is missing", "the next start of a program makes it")
        elif not path.is_dir():
            yield fail(subject, f"{key}: {path} is no directory", "remove it, or change the key")
        elif path.stat().st_mode & stat.S_IWOTH:
            yield fail(subject, f"{key}: everybody may write in {path}", f"chmod o-w {shell(path)}")


def check_password(subject: str, password: object) -> Iterator[Finding]:
    """See that nobody else can read a password that lies in a file."""
    if not isinstance(password, str) or not password.startswith("file:/"):
        return
    path = Path(password.removeprefix("file:"))
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return  # whether it can be read, the login tells
    except OSError as exc:
        yield fail(subject, f"password: {path}: {exc.strerror}", "make the file, or change the key")
        return
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        found = f"password: everybody may read or write {path} (mode {stat.S_IMODE(mode):03o})"
        yield fail(subject, found, f"chmod 600 {shell(path)}")


def check_commands(settings: Settings) -> Iterator[Finding]:
    """See that the program of each command is there and can be run."""
    good = []
    for name, run in settings.commands.items():
        subject, program = f"command {name}", Path(run[0])
        if not program.exists():
            yield fail(subject, f"{program}: there is none", f"install it, or correct [commands.{name}]")
        elif not program.is_file() or not os.access(program, os.X_OK):
            yield fail(subject, f"{program}: {user(os.geteuid())} cannot run it", f"chmod +x {shell(program)}")
        elif program.stat().st_mode & stat.S_IWOTH:
            yield fail(subject, f"{program}: everybody may change it", f"chmod o-w {shell(program)}")
        else:
            good.append(name)
    if good:
        yield ok("commands", f"can be run: {listed(good)}")


def check_client() -> Iterator[Finding]:
    """See that scripts find the client, and the one that belongs to this version."""
    own = Path(orchestrator.__file__).with_name(CLIENT)
    found = shutil.which(CLIENT)
    if found is None:
        yield warn(
            "client",
            f"{CLIENT} is not in the PATH here",
            f"ln -s {shell(own)} /usr/local/bin/, or call it by its whole path",
        )
    elif not filecmp.cmp(found, own, shallow=False):
        yield warn("client", f"{found} is of another version than this program", f"install {own} in its place")
    else:
        yield ok("client", found)
