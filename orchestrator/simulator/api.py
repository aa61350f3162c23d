"""The routes of the masking API below its base: what each one reads, does and answers.

No network and no login here: `service` calls a route with what was asked and sends what it gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.simulator.catalogue import MAX_ID, Catalogue
from orchestrator.simulator.engine import Engine, NotCancellable
from orchestrator.simulator.faults import Faults
from orchestrator.simulator.model import Connectors, Execution
from orchestrator.simulator.shapes import (
    Shape,
    application_shape,
    component_shape,
    connector_shape,
    environment_shape,
    event_shape,
    execution_shape,
    job_shape,
    ruleset_shape,
    setting_shapes,
    system_shape,
)

PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
CONNECTOR_TYPES = ("DATABASE", "FILE", "VSAM")


class Refused(Exception):  # noqa: N818 - named for what it tells
    """A request that gets a 4xx: its status and its one-line `errorMessage`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Call:
    """What a route is called with: the query, the body, and the number in the path (0 without one)."""

    query: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    number: int = 0

    def whole(self, name: str, least: int = 0, most: int = MAX_ID) -> int | None:
        """The whole number in the query as `name`; None where it is left out or blank. Raises Refused."""
        text = self.query.get(name)
        if not text:
            return None
        with suppress(ValueError):
            number = int(text)
            if least <= number <= most:
                return number
        raise Refused(400, f"{name} must be a whole number from {least} to {most}, not {text[:40]!r}")

    def fields(self) -> dict[str, Any]:
        """The JSON object that is the body. Raises Refused."""
        try:
            fields = json.loads(self.body)
        except (ValueError, RecursionError):
            raise Refused(400, "the body must be JSON") from None
        if not isinstance(fields, dict):
            raise Refused(400, "the body must be a JSON object")
        return fields


T = TypeVar("T")
Route = Callable[[Call], Any]
Routes = dict[str, dict[str, Route]]


class Api:
    """The routes, by path (`#` stands for a number) and method, over one engine and its catalogue.

    Every route may be called from any thread; it gives what json can write, or raises Refused.
    """

    def __init__(self, catalogue: Catalogue, engine: Engine, faults: Faults) -> None:
        self._catalogue = catalogue
        self._engine = engine
        self._faults = faults
        self.routes: Routes = {
            "applications": {"GET": self._applications},
            "environments": {"GET": self._environments},
            "environments/#": {"GET": self._environment},
            "masking-jobs": {"GET": self._jobs},
            "masking-jobs/#": {"GET": self._job},
            "executions": {"GET": self._executions, "POST": self._start},
            "executions/#": {"GET": self._execution},
            "executions/#/cancel": {"POST": self._cancel},
            "execution-components": {"GET": self._components},
            "execution-events": {"GET": self._events},
            "application-settings": {"GET": self._settings},
            "system-information": {"GET": self._system},
        }
        for kind in ("profile", "reidentification", "tokenization"):
            self.routes[f"{kind}-jobs"] = {"GET": lambda call: _page(call, (), _as_it_is)}
        for kind in ("database", "file"):
            self.routes[f"{kind}-connectors"] = {"GET": self._per_environment(connector_shape, kind)}
            self.routes[f"{kind}-rulesets"] = {"GET": self._per_environment(ruleset_shape, kind)}

    def _applications(self, call: Call) -> Shape:
        with self._engine.lock:
            rows = sorted(self._catalogue.applications.values(), key=lambda each: each.id)
            return _page(call, rows, application_shape)

    def _environments(self, call: Call) -> Shape:
        application_id = call.whole("application_id")
        with self._engine.lock:
            rows = sorted(self._catalogue.environments.values(), key=lambda each: each.id)
            if application_id is not None:
                rows = [each for each in rows if each.application.id == application_id]
            return _page(call, rows, environment_shape)

    def _environment(self, call: Call) -> Shape:
        with self._engine.lock:
            environment = self._catalogue.environments.get(call.number)
            if environment is None:
                raise Refused(404, f"no environment has the id {call.number}")
            return environment_shape(environment)

    def _per_environment(self, shape: Callable[[Any, str], Shape], kind: str) -> Route:
        def rows(call: Call) -> Shape:
            environment_id = call.whole("environment_id")
            with self._engine.lock:
                environments = sorted(self._catalogue.environments.values(), key=lambda each: each.id)
                if environment_id is not None:
                    environments = [each for each in environments if each.id == environment_id]
                return _page(call, environments, lambda each: shape(each, kind))

        return rows

    def _jobs(self, call: Call) -> Shape:
        environment_id = call.whole("environment_id")
        with self._engine.lock:
            jobs = self._catalogue.jobs_in(environment_id)
            return _page(call, jobs, lambda job: job_shape(job, self._shift))

    def _job(self, call: Call) -> Shape:
        with self._engine.lock:
            job = self._catalogue.jobs.get(call.number)
            if job is None:
                raise Refused(404, f"no masking job has the id {call.number}")
            return job_shape(job, self._shift)

    def _executions(self, call: Call) -> Shape:
        job_id = call.whole("job_id")
        status = call.query.get("execution_status") or None
        with self._engine.lock:
            now = self._engine.advance()
            ids = self._shown(self._engine.ids(job_id, status))
            return _page(call, ids, lambda each: self._shape(self._engine.execution(each), now))

    def _execution(self, call: Call) -> Shape:
        with self._engine.lock:
            now = self._engine.advance()
            return self._shape(self._found(call.number), now)

    def _start(self, call: Call) -> Shape:
        fields = call.fields()
        job_id = _id(fields, "jobId")
        if job_id is None:
            raise Refused(400, "jobId must be given")
        connectors = Connectors(
            target=_id(fields, "targetConnectorId"),
            source=_id(fields, "sourceConnectorId"),
            type=fields.get("connectorType"),
        )
        if connectors.type not in (None, *CONNECTOR_TYPES):
            raise Refused(400, f"connectorType must be one of {', '.join(CONNECTOR_TYPES)}")
        with self._engine.lock:
            job = self._catalogue.jobs.get(job_id)
            if job is None:
                raise Refused(404, f"no job has the id {job_id}")
            if job.multi_tenant and connectors.target is None:
                raise Refused(400, f"targetConnectorId must be given: job {job_id} is multi-tenant")
            if job.multi_tenant and job.on_the_fly and connectors.source is None:
                raise Refused(400, f"sourceConnectorId must be given: job {job_id} is on-the-fly")
            execution = self._engine.submit(job, connectors)
            return self._shape(execution, execution.submitted)

    def _cancel(self, call: Call) -> Shape:
        expected = call.query.get("expected_status")
        if not expected and call.body.strip():
            expected = call.fields().get("expected_status")
        with self._engine.lock:
            now = self._engine.advance()
            self._found(call.number)
            try:
                execution = self._engine.cancel(call.number, expected or None)
            except NotCancellable as error:
                raise Refused(409, str(error)) from None
            return self._shape(execution, now)

    def _components(self, call: Call) -> Shape:
        execution_id = call.whole("execution_id")
        with self._engine.lock:
            now = self._engine.advance()
            ids = self._shown(self._engine.ids())
            if execution_id is not None:
                ids = [self._found(execution_id).id]
            shape = component_shape
            return _page(call, ids, lambda each: shape(self._engine.execution(each), now, self._shift))

    def _events(self, call: Call) -> Shape:
        execution_id = call.whole("execution_id")
        with self._engine.lock:
            self._engine.advance()
            if execution_id is not None:
                self._found(execution_id)
            events = self._engine.events(execution_id)
            vanished = self._faults.vanished
            if vanished:
                events = [event for event in events if event.execution.id not in vanished]
            return _page(call, events, lambda event: event_shape(event, self._shift))

    def _settings(self, call: Call) -> Shape:
        return _page(call, setting_shapes(self._engine.cpus, self._engine.memory), _as_it_is)

    def _system(self, _call: Call) -> Shape:
        return system_shape(self._engine.cpus, self._engine.memory, self._shift)

    @property
    def _shift(self) -> float:
        return self._faults.number("clock")

    def _shape(self, execution: Execution, now: float) -> Shape:
        return execution_shape(execution, now, self._shift)

    def _shown(self, ids: Sequence[int]) -> Sequence[int]:
        vanished = self._faults.vanished
        return [each for each in ids if each not in vanished] if vanished else ids

    def _found(self, execution_id: int) -> Execution:
        if execution_id not in self._faults.vanished:
            with suppress(KeyError):
                return self._engine.execution(execution_id)
        raise Refused(404, f"no execution has the id {execution_id}")


def _page(call: Call, rows: Sequence[T], shape: Callable[[T], Shape]) -> Shape:
    size = call.whole("page_size", 1, MAX_PAGE_SIZE) or PAGE_SIZE
    first = ((call.whole("page_number", 1) or 1) - 1) * size
    shown = [shape(row) for row in rows[first : first + size]]
    return {"_pageInfo": {"numberOnPage": len(shown), "total": len(rows)}, "responseList": shown}


def _as_it_is(shape: Shape) -> Shape:
    return shape


def _id(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_ID:
        raise Refused(400, f"{name} must be a whole number from 0 to {MAX_ID}")
    return value
