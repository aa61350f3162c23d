"""What the settings allow a job file to ask for."""

from __future__ import annotations

import os
import re

from orchestrator.errors import JobRefused
from orchestrator.job import JobRequest
from orchestrator.settings import Settings, SpoolSettings

PARAM = re.compile(r"\{param\.([A-Za-z0-9_-]{1,64})\}")


def allowed_engines(settings: Settings, spool: SpoolSettings, request: JobRequest) -> tuple[str, ...]:
    """Give the engines that a job may run on, empty for all of them. Raises JobRefused where there is none."""
    for engine in request.engine:
        if engine not in settings.engines:
            raise JobRefused(f"engine: there is no engine {engine!r}; there are: {', '.join(settings.engines)}")
    wanted = request.engine or tuple(settings.engines)
    allowed = tuple(engine for engine in wanted if spool.engines is None or engine in spool.engines)
    # A command runs on engines for commands only, a masking job on the others.
    fitting = tuple(
        engine for engine in allowed if (settings.engines[engine].kind == "command") == (request.command is not None)
    )
    if fitting:
        # Unbounded stays unbounded: an engine that is added later may run it too.
        return fitting if request.engine or spool.engines is not None else ()
    if not allowed:
        raise JobRefused(f"engine: spool {spool.name} does not allow {', '.join(wanted)}")
    kind = "of kind command" if request.command is not None else "that runs masking jobs"
    raise JobRefused(f"engine: none {kind} among {', '.join(allowed)}")


def check_command(settings: Settings, spool: SpoolSettings, request: JobRequest, owner: int, mode: int) -> bool:
    """Check that a job's `command` may be run for uid `owner`; True where it is a shell line.

    `mode` are the permissions of the job file. Raises JobRefused.
    """
    if request.command is None:
        return False
    run = settings.commands.get(request.command)
    if run is not None:
        fill_in(run, dict(request.params))
        if os.geteuid() == 0:
            _check_own_word(owner, mode)
        return False
    if not spool.shell_commands:
        known = ", ".join(settings.commands) or "none"
        raise JobRefused(f"command: {request.command[:64]!r} is not configured; there are: {known}")
    if owner != os.geteuid() and os.geteuid() != 0:
        raise JobRefused(f"command: a shell line of uid {owner} cannot be run by uid {os.geteuid()}")
    _check_own_word(owner, mode)
    return True


def _check_own_word(owner: int, mode: int) -> None:
    """Check that what is run as a file's owner is the owner's own word. Raises JobRefused."""
    if mode & 0o022:
        raise JobRefused(
            f"command: others than uid {owner}, as whom it would run, may write to the job file (mode {mode:03o}): "
            "make it with umask 022 or 027"
        )


def fill_in(run: tuple[str, ...], params: dict[str, str]) -> list[str]:
    """Put a job's parameters into a configured command: program and arguments. Raises JobRefused.

    A value cannot become an option, an argument of its own, or part of the program's path.
    """
    filled = [run[0]]
    for argument in run[1:]:
        names = PARAM.findall(argument)
        for name in names:
            if name not in params:
                raise JobRefused(f"command: param.{name} is missing")
        text = PARAM.sub(lambda match: params[match[1]], argument)
        if text.startswith("-") and not argument.startswith("-"):
            guilty = next((name for name in names if params[name]), names[0])  # those before it are empty
            if not params[guilty].startswith("-"):  # it is the command's own, and was not its beginning
                raise JobRefused(
                    f"param.{names[0]}: is empty, so that the argument begins with '-', and would be read as an option"
                )
            raise JobRefused(f"param.{guilty}: begins with '-', and would be read as an option")
        filled.append(text)
    return filled
