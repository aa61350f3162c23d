"""The environments and jobs of a simulated engine, and the file that names them.

The file is TOML. Only `name` must be given; what is left out has the value shown:

    [[environments]]
    name = "DEMO"
    id = 1                     # the next free id, from --first-id on
    application = "SIMULATED"

    [[jobs]]
    name = "MASK_CRM"
    environment = "DEMO"       # may be left out where the file has only one
    id = 1                     # the next free id, from --first-id on
    seconds = 5                # --seconds; may be a fraction or 0
    rows = 100000
    max_memory = 1024          # MB
    outcome = "succeed"        # or fail, warn, leak, hang, odd
    multi_tenant = false       # a start must name a target connector
    on_the_fly = false         # with multi_tenant: a start must name a source connector too

Ids that are given are taken as they are: --first-id does not shift them.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.simulator.model import Application, Environment, Job, Outcome

DEFAULT_APPLICATION = "SIMULATED"
DEFAULT_ENVIRONMENT = "DEMO"
DEFAULT_JOBS = {
    "MASK_CRM": Outcome.SUCCEED,
    "MASK_HR": Outcome.SUCCEED,
    "MASK_SALES": Outcome.SUCCEED,
    "MASK_BILLING": Outcome.SUCCEED,
    "MASK_BROKEN": Outcome.FAIL,
    "MASK_WARNS": Outcome.WARN,
    "MASK_LEAKS": Outcome.LEAK,
}
MAX_ID = 2**31 - 1  # ids are int32
Fields = Mapping[str, Any]


class CatalogueError(ValueError):
    """An environment or a job that cannot be: one line that names the key."""


@dataclass(slots=True)
class Catalogue:
    """All environments and jobs, by id. Not safe against threads: the caller holds a lock."""

    seconds: float = 5.0  # of a job that does not say its own
    memory: int = 16384  # MB; no job may ask for more
    first_id: int = 1
    applications: dict[int, Application] = field(default_factory=dict)
    environments: dict[int, Environment] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)

    def jobs_in(self, environment_id: int | None) -> list[Job]:
        """The jobs of an environment, or all, by ascending id."""
        jobs = (job for job in self.jobs.values() if environment_id in (None, job.environment.id))
        return sorted(jobs, key=lambda job: job.id)

    def environment(self, name: str) -> Environment | None:
        """The environment called `name`."""
        return next((each for each in self.environments.values() if each.name == name), None)

    def job(self, name: str, environment: str) -> Job | None:
        """The job called `name` in the environment called `environment`."""
        for each in self.jobs.values():
            if (each.name, each.environment.name) == (name, environment):
                return each
        return None

    def add_environment(self, fields: Fields) -> Environment:
        """Add the environment with the fields of a file's table; raises CatalogueError."""
        checked = _checked(fields, _ENVIRONMENT_KEYS)
        name = checked["name"]
        if self.environment(name) is not None:
            raise CatalogueError(f"name: a second environment called {name}")
        environment_id = checked.get("id") or _free(self.environments, self.first_id)
        if environment_id in self.environments:
            raise CatalogueError(f"id: {environment_id} is taken")
        application = self._application(checked.get("application", DEFAULT_APPLICATION))
        environment = Environment(environment_id, name, application)
        self.environments[environment_id] = environment
        return environment

    def add_job(self, fields: Fields) -> Job:
        """Add the job with the fields of a file's table; raises CatalogueError."""
        checked = _checked(fields, _JOB_KEYS)
        environment = self._environment_for(checked.get("environment"))
        if self.job(checked["name"], environment.name) is not None:
            raise CatalogueError(f"name: a second job called {checked['name']} in {environment.name}")
        job_id = checked.get("id") or _free(self.jobs, self.first_id)
        return self._keep(job_id, environment, checked)

    def put_job(self, fields: Fields) -> Job:
        """Add a job, or change the one of that name and environment; raises CatalogueError.

        An environment that is not there is made. What a change leaves out stays as it was; a new `id` moves
        the job there.
        """
        checked = _checked(fields, _JOB_KEYS)
        name = checked.get("environment")
        if name is None and not self.environments:
            name = DEFAULT_ENVIRONMENT
        if name is not None and self.environment(name) is None:
            environment = self.add_environment({"name": name})
            try:
                return self.add_job({**checked, "environment": name})
            except CatalogueError:
                del self.environments[environment.id]
                raise
        environment = self._environment_for(name)
        old = self.job(checked["name"], environment.name)
        if old is None:
            return self.add_job(checked)
        del self.jobs[old.id]
        before = {key: getattr(old, key) for key in ("id", *_JOB_DEFAULTS, "seconds")}
        try:
            return self._keep(checked.get("id", old.id), environment, before | checked)
        except CatalogueError:
            self.jobs[old.id] = old
            raise

    def remove_job(self, fields: Fields) -> Job:
        """Take the job of that name and environment away; raises CatalogueError where there is none."""
        checked = _checked(fields, _JOB_KEYS)
        environment = self._environment_for(checked.get("environment"))
        job = self.job(checked["name"], environment.name)
        if job is None:
            raise CatalogueError(f"name: no job called {checked['name']} in {environment.name}")
        return self.jobs.pop(job.id)

    def _keep(self, job_id: int, environment: Environment, fields: Fields) -> Job:
        if job_id in self.jobs:
            raise CatalogueError(f"id: {job_id} is taken by {self.jobs[job_id].name}")
        own = {"seconds": self.seconds, **fields, "id": job_id, "environment": environment}
        job = Job(**(_JOB_DEFAULTS | own))
        if job.max_memory > self.memory:
            raise CatalogueError(f"max_memory: {job.max_memory} MB would never fit into {self.memory} MB")
        self.jobs[job.id] = job
        return job

    def _application(self, name: str) -> Application:
        for each in self.applications.values():
            if each.name == name:
                return each
        application = Application(_free(self.applications, self.first_id), name)
        self.applications[application.id] = application
        return application

    def _environment_for(self, name: str | None) -> Environment:
        if name is None:
            if len(self.environments) == 1:
                return next(iter(self.environments.values()))
            raise CatalogueError("environment: must be given, since there is not exactly one")
        environment = self.environment(name)
        if environment is None:
            raise CatalogueError(f"environment: there is none called {name}")
        return environment


def demo_catalogue(*, seconds: float, memory: int, first_id: int) -> Catalogue:
    """The catalogue of an engine that was given no file; `seconds` is how long each of its jobs takes."""
    catalogue = Catalogue(seconds, memory, first_id)
    catalogue.add_environment({"name": DEFAULT_ENVIRONMENT})
    for name, outcome in DEFAULT_JOBS.items():
        catalogue.add_job({"name": name, "outcome": outcome.value})
    return catalogue


def read_catalogue(path: Path, *, seconds: float, memory: int, first_id: int) -> Catalogue:
    """The catalogue in a file; raises CatalogueError with one line that names the file and the key."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CatalogueError(f"{path}: not TOML: {error}") from error
    for key in tables:
        if key not in ("environments", "jobs"):
            raise CatalogueError(f"{path}: {key}: unknown; there are [[environments]] and [[jobs]]")
    catalogue = Catalogue(seconds, memory, first_id)
    _add_all(path, "environments", tables, catalogue.add_environment)
    _add_all(path, "jobs", tables, catalogue.add_job)
    return catalogue


def _add_all(path: Path, key: str, tables: Mapping[str, Any], add: Callable[[Fields], object]) -> None:
    rows = tables.get(key, [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise CatalogueError(f"{path}: {key}: at least one [[{key}]] is needed")
    # Those with an id first, so that the others are not numbered onto it.
    for number, row in sorted(enumerate(rows, start=1), key=lambda pair: "id" not in pair[1]):
        try:
            add(row)
        except CatalogueError as error:
            raise CatalogueError(f"{path}: {key}[{number}].{error}") from error


def _free(taken: Iterable[int], first: int) -> int:
    used = set(taken)
    while first in used:
        first += 1
    return first


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise CatalogueError(f"must be a name, not {value!r}")
    return value


def _whole(value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_ID:
        raise CatalogueError(f"must be a whole number from {least} on, not {value!r}")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise CatalogueError(f"must be a number of seconds from 0 on, not {value!r}")
    return float(value)


def _outcome(value: object) -> Outcome:
    if not isinstance(value, str) or value not in list(Outcome):
        raise CatalogueError(f"must be one of {', '.join(Outcome)}, not {value!r}")
    return Outcome(value)


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise CatalogueError(f"must be true or false, not {value!r}")
    return value


Check = Callable[[object], object]

_ENVIRONMENT_KEYS: dict[str, Check] = {
    "name": _text,
    "id": lambda value: _whole(value, 1),
    "application": _text,
}
_JOB_KEYS: dict[str, Check] = {
    "name": _text,
    "environment": _text,
    "id": lambda value: _whole(value, 1),
    "seconds": _seconds,
    "rows": lambda value: _whole(value, 0),
    "max_memory": lambda value: _whole(value, 1),
    "outcome": _outcome,
    "multi_tenant": _yes_or_no,
    "on_the_fly": _yes_or_no,
}
_JOB_DEFAULTS: dict[str, Any] = {
    "rows": 100_000,
    "max_memory": 1024,
    "outcome": Outcome.SUCCEED,
    "multi_tenant": False,
    "on_the_fly": False,
}


def _checked(fields: Fields, checks: Mapping[str, Check]) -> dict[str, Any]:
    checked = {}
    for key, value in fields.items():
        if key not in checks:
            raise CatalogueError(f"{key}: unknown; there are {', '.join(checks)}")
        try:
            checked[key] = checks[key](value)
        except CatalogueError as error:
            raise CatalogueError(f"{key}: {error}") from None
    if "name" not in checked:
        raise CatalogueError("name: must be given")
    return checked
