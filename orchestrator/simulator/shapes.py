"""What a simulated engine's API shows: its records as the JSON objects of the masking API.

Each function takes a record and gives a dict that json can write. `shift` is how many seconds the engine's
clock is off: it is added to every time shown.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator.simulator.model import Application, Environment, Event, Execution, Job, Status

Shape = dict[str, Any]

CREATED = 1499128260.952  # 2017-07-04, when every job of a simulated engine was made
VERSION = "5.1.47.0"


def time_text(seconds: float | None, shift: float) -> str | None:
    """An instant in seconds since 1970 as `2017-07-04T00:31:00.952+0000`; None stays None."""
    if seconds is None:
        return None
    instant = datetime.fromtimestamp(round(seconds + shift, 3), UTC)
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{instant.microsecond // 1000:03d}+0000"


def application_shape(application: Application) -> Shape:
    """A row of /applications."""
    return {"applicationId": application.id, "applicationName": application.name}


def environment_shape(environment: Environment) -> Shape:
    """A row of /environments."""
    return {
        "environmentId": environment.id,
        "environmentName": environment.name,
        "application": environment.application.name,
        "applicationId": environment.application.id,
        "purpose": "MASK",
        "isWorkflowEnabled": False,
    }


def job_shape(job: Job, shift: float) -> Shape:
    """A row of /masking-jobs."""
    source = {"connectorId": job.environment.id, "connectorType": "DATABASE"} if job.on_the_fly else None
    return {
        "maskingJobId": job.id,
        "jobName": job.name,
        "environmentId": job.environment.id,
        "rulesetId": job.environment.id,
        "rulesetType": "DATABASE",
        "createdBy": "admin",
        "createdTime": time_text(CREATED, shift),
        "email": "masking@example.com",
        "feedbackSize": 50000,
        "jobDescription": f"Simulated: takes {job.seconds:g} s, outcome {job.outcome}",
        "maxMemory": job.max_memory,
        "minMemory": min(job.max_memory, 1024),
        "multiTenant": job.multi_tenant,
        "numInputStreams": 1,
        "onTheFlyMasking": job.on_the_fly,
        "onTheFlyMaskingSource": source,
        "failImmediately": False,
        "streamRowLimit": 20,
    }


def execution_shape(execution: Execution, now: float, shift: float) -> Shape:
    """An execution as it is at `now`."""
    masked, total = execution.rows(now)
    return {
        "executionId": execution.id,
        "jobId": execution.job.id,
        "connectorType": execution.connectors.type,
        "sourceConnectorId": execution.connectors.source,
        "targetConnectorId": execution.connectors.target,
        "status": execution.status.value,
        "rowsMasked": masked,
        "rowsTotal": total,
        "submitTime": time_text(execution.submitted, shift),
        "startTime": time_text(execution.started, shift),
        "endTime": time_text(execution.ended, shift),
    }


def component_shape(execution: Execution, now: float, shift: float) -> Shape:
    """The one table of an execution, a row of /execution-components, as it is at `now`."""
    masked, total = execution.rows(now)
    return {
        "executionComponentId": execution.id,
        "executionId": execution.id,
        "componentName": table_name(execution),
        "status": "WAITING" if execution.status is Status.QUEUED else execution.status.value,
        "rowsMasked": masked,
        "rowsTotal": total,
        "startTime": time_text(execution.started, shift),
        "endTime": time_text(execution.ended, shift),
    }


def event_shape(event: Event, shift: float) -> Shape:
    """A row of /execution-events."""
    aborted = event.type == "JOB_ABORTED"
    return {
        "executionEventId": event.id,
        "executionId": event.execution.id,
        "executionComponentId": event.execution.id,
        "eventType": event.type,
        "severity": event.severity,
        "cause": event.cause,
        "count": event.count,
        "timeStamp": time_text(event.time, shift),
        "maskedObjectName": table_name(event.execution) + ("" if aborted else ".NAME"),
        "algorithmName": None if aborted else "dlpx-core:FullName",
        "exceptionType": "java.sql.SQLException" if aborted else "NonConformantDataException",
        "exceptionDetail": "the simulated job was told to fail" if aborted else "rows do not fit the pattern",
    }


def table_name(execution: Execution) -> str:
    """The table that an execution masks."""
    return f"{execution.job.name}_TABLE"


def connector_shape(environment: Environment, kind: str) -> Shape:
    """The one connector of an environment of a kind: a row of /database-connectors or /file-connectors."""
    shape = {
        f"{kind}ConnectorId": environment.id,
        "connectorName": f"{environment.name}_{kind.upper()}",
        "environmentId": environment.id,
    }
    if kind == "file":
        return shape | {"fileType": "DELIMITED", "connectionInfo": {"connectionMode": "SFTP"}}
    return shape | {"databaseType": "ORACLE", "host": "db.example.com", "port": 1521, "schemaName": "APP"}


def ruleset_shape(environment: Environment, kind: str) -> Shape:
    """The one ruleset of an environment of a kind: a row of /database-rulesets or /file-rulesets."""
    return {
        f"{kind}RulesetId": environment.id,
        "rulesetName": f"{environment.name}_{kind.upper()}_RULESET",
        f"{kind}ConnectorId": environment.id,
    }


def setting_shapes(cpus: int, memory: int) -> list[Shape]:
    """The rows of /application-settings; `memory` in MB."""
    settings = {"NumSimulJobsAllowed": str(cpus), "MaximumMemoryForJobs": str(memory)}
    pairs = settings.items()
    return [{"settingGroup": "mask", "settingName": name, "settingValue": value} for name, value in pairs]


def system_shape(cpus: int, memory: int, shift: float) -> Shape:
    """/system-information; `memory` in MB."""
    return {
        "version": VERSION,
        "build": f"simulated-{VERSION}",
        "totalAllocatedMemoryForJobs": memory,
        "totalAvailableCores": cpus,
        "latestGlobalKeyResetTime": time_text(CREATED, shift),
    }
