"""What can go wrong, as one tree.

OrchestratorError
├── UsageError              the user asked for something impossible
├── SettingsError           orchestrator.toml is wrong: names the file and the key
├── StoreError              the database cannot serve
│   └── SchemaTooNew        it was written by a newer orchestrator
├── JobRefused              a job file breaks the protocol: line and reason
└── EngineError             an engine did not do what was asked
    ├── EngineDown          no answer, or no sensible one: ask again later
    │   └── LoginRefused    the engine answers, but not to these credentials
    ├── StartRefused        it answered that it did not start the job
    └── StartUnknown        no answer to a start: it may or may not run
"""

from __future__ import annotations


class OrchestratorError(Exception):
    """Base of all: `str()` is one line that a user can act on; `exit_status` is what a command ends with."""

    exit_status = 1


class UsageError(OrchestratorError):
    """The user asked for something that cannot be."""

    exit_status = 64


class SettingsError(OrchestratorError):
    """The settings are wrong; the message names the file and the key."""

    exit_status = 78


class StoreError(OrchestratorError):
    """The database cannot serve."""

    exit_status = 74


class SchemaTooNew(StoreError):  # noqa: N818 - named for what it tells
    """The database was written by a newer orchestrator than this one."""


class JobRefused(OrchestratorError):  # noqa: N818 - named for what it tells
    """A job file breaks the protocol. `line` is 1-based, 0 where the whole file is meant."""

    exit_status = 65

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.reason = reason
        self.line = line


class EngineError(OrchestratorError):
    """An engine did not do what was asked."""


class EngineDown(EngineError):  # noqa: N818 - named for what it tells
    """No answer, or none that makes sense. Nothing is concluded from it; the engine is asked again later."""


class LoginRefused(EngineDown):
    """The engine answers, but refuses these credentials."""


class StartRefused(EngineError):  # noqa: N818 - named for what it tells
    """The engine answered that it did not start the job: this attempt FAILED."""


class StartUnknown(EngineError):  # noqa: N818 - named for what it tells
    """No answer to a start. The execution may run: ask the engine before anything else (P4)."""
