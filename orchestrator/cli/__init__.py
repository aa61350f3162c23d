"""The command line. One file a noun; each is loaded only when it is asked for, so that a start stays short."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from importlib import import_module
from traceback import walk_tb

import click

from orchestrator import __version__
from orchestrator.cli.output import discard_output, help_without_command
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.job import ascii_line
from orchestrator.settings import CONFIG_PLACES, CONFIG_VARIABLE

LOG_VARIABLE = "ORCHESTRATOR_LOG"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_COMMANDS = {
    "up": "daemons",
    "watch": "daemons",
    "schedule": "daemons",
    "scheduler": "daemons",
    "checkstatus": "daemons",
    "submit": "submit",
    "status": "status",
    "doctor": "doctor",
    "recover": "doctor",
    "jobs": "jobs",
    "show": "jobs",
    "cancel": "jobs",
    "hold": "jobs",
    "release": "jobs",
    "engine": "engine",
    "simulate-engine": "simulator",
    "init": "init",
    "version": "version",
}


class _Commands(click.Group):
    """Loads the module of a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = getattr(import_module(f"orchestrator.cli.{module}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    metavar="FILE",
    help=f"Settings; else ${CONFIG_VARIABLE}, {', '.join(CONFIG_PLACES)}.",
)
@click.version_option(__version__, prog_name="orchestrator")
@click.pass_context
def orchestrator(ctx: click.Context, config: str | None) -> None:
    """Run masking jobs of shell scripts on a pool of Delphix masking engines.

    Files come in, rows wait, slots run, lights go out.

    \b
    Exit status: 0 done · 1 failed, or not found · 64 wrong usage · 65 to 131 as docs/protocol.md says for callers
    74 the database cannot serve · 78 the settings are wrong
    """
    ctx.obj = config
    help_without_command(ctx)


def main() -> None:
    """Run the command line; what goes wrong is one line on stderr, never a traceback."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit status."""
    _open_what_is_closed()
    level = (os.environ.get(LOG_VARIABLE) or "INFO").upper()
    if level not in LOG_LEVELS:
        return _complain(f"{LOG_VARIABLE} must be {', '.join(LOG_LEVELS)} or empty", UsageError.exit_status)
    logging.basicConfig(level=level, handlers=[_log_handler()])
    logging.raiseExceptions = False  # a log that cannot be written stops nothing
    # What no line of ours shows need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # so documents logging's HOWTO, under Optimization
    try:
        # Not click's own `main`, which ends with 1 where the reader of the output is gone.
        with orchestrator.make_context("orchestrator", arguments) as ctx:
            orchestrator.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.UsageError as exc:
        asked = exc.ctx.command_path if exc.ctx else "orchestrator"
        return _complain(f"{exc.format_message()} (try `{asked} --help`)", UsageError.exit_status)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as exc:
        return _complain(exc.format_message(), exc.exit_code)
    except OrchestratorError as exc:
        return _complain(_with_advice(str(exc)), exc.exit_status)
    except BrokenPipeError:
        discard_output()
        return 141
    except OSError as exc:
        if _is_of_output(exc):
            discard_output()
            return _complain(f"the output cannot be written: {exc.strerror}", 74)
        return _complain(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc), 74)
    except Exception as exc:
        from peewee import PeeweeException

        if isinstance(exc, PeeweeException):
            return _complain(_with_advice(f"the database cannot serve: {exc}"), 74)
        if "ORCHESTRATOR_DEBUG" in os.environ:
            raise
        return _complain(f"a fault of this program: {type(exc).__name__}: {exc} (ORCHESTRATOR_DEBUG=1 tells more)", 70)
    return 0


def _open_what_is_closed() -> None:
    """Give /dev/null to what was started with `>&-`: else the next file that is opened would become its output."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _is_of_output(exc: OSError) -> bool:
    """Tell whether it was the output that could not be written: the error itself names no file."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in walk_tb(exc.__traceback__))


def _with_advice(what: str) -> str:
    if "database is locked" not in what:
        return what
    from orchestrator.store.models import database

    return f"{what}: somebody else holds it for long; `fuser -v {database.database}` tells who"


def _complain(what: str, status: int) -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"orchestrator: {ascii_line(what)}\n")
    return status


class _Line(logging.Formatter):
    """One line of printable ASCII a record, whatever a job file or an engine has put into it."""

    def format(self, record: logging.LogRecord) -> str:
        return ascii_line(super().format(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        return ""


def _log_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line("%(asctime)s %(levelname)s %(message)s"))
    return handler
