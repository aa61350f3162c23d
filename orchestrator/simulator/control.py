"""The routes below `_simulator`, by which a test looks behind the engine's API and makes it misbehave.

They need no token and no fault hits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.simulator.api import Call, Refused, Routes
from orchestrator.simulator.catalogue import Catalogue, CatalogueError
from orchestrator.simulator.engine import Engine
from orchestrator.simulator.faults import FaultError, Faults
from orchestrator.simulator.shapes import Shape, execution_shape, job_shape
from orchestrator.simulator.tokens import Tokens


class Control:
    """What a test may do to an engine, as methods and as routes; for any number of threads."""

    def __init__(self, catalogue: Catalogue, engine: Engine, faults: Faults, tokens: Tokens) -> None:
        self._catalogue = catalogue
        self._engine = engine
        self._faults = faults
        self._tokens = tokens
        self.routes: Routes = {
            "faults": {"GET": lambda call: faults.in_force(), "POST": self._set_faults},
            "executions": {"GET": lambda call: self.executions()},
            "reset": {"POST": lambda call: self.reset()},
            "jobs": {"POST": self._change_job},
        }

    def executions(self) -> list[Shape]:
        """Every execution ever started, oldest first, vanished ones too; with jobName, environmentName."""
        with self._engine.lock:
            now = self._engine.advance()
            return [
                execution_shape(each, now, self._faults.number("clock"))
                | {"jobName": each.job.name, "environmentName": each.job.environment.name}
                for each in self._engine.executions()
            ]

    def reset(self) -> Shape:
        """Forget all executions, faults and tokens; jobs stay, and no id is used a second time."""
        with self._engine.lock:
            self._engine.clear()
            self._tokens.clear()
            self._faults.clear()
        return {}

    def put_job(self, fields: Mapping[str, Any]) -> Shape:
        """Add a job or change the one of that name and environment; it as in /masking-jobs.

        `fields` are the keys of a jobs file; raises CatalogueError.
        """
        with self._engine.lock:
            return job_shape(self._catalogue.put_job(fields), self._faults.number("clock"))

    def remove_job(self, fields: Mapping[str, Any]) -> Shape:
        """Take the job of that name and environment away; it as in /masking-jobs. Raises CatalogueError."""
        with self._engine.lock:
            return job_shape(self._catalogue.remove_job(fields), self._faults.number("clock"))

    def _set_faults(self, call: Call) -> Shape:
        try:
            self._faults.set(call.fields())
        except FaultError as error:
            raise Refused(400, str(error)) from None
        return dict(self._faults.in_force())

    def _change_job(self, call: Call) -> Shape:
        fields = call.fields()
        remove = fields.pop("remove", False)
        if not isinstance(remove, bool):
            raise Refused(400, f"remove: must be true or false, not {remove!r}")
        try:
            return self.remove_job(fields) if remove else self.put_job(fields)
        except CatalogueError as error:
            raise Refused(400, str(error)) from None
