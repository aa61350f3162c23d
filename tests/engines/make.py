"""Engines, settings and jobs, as tests need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.clock import tick, utc_now
from orchestrator.engines.delphix import DelphixEngine
from orchestrator.job import Job
from orchestrator.settings import EngineSettings, Settings
from orchestrator.store.models import Queue

SECRET = "geheim-7x"


def a_job(**fields: Any) -> Job:
    """Give a job that is in no database: QUEUED, or as `fields` say."""
    row: dict[str, Any] = {field.name: field.default for field in Queue._meta.sorted_fields}
    row |= {"id": 1, "host": "host", "spool": "default", "name": "MASK_CRM", "job": "MASK_CRM", "status": "QUEUED"}
    return Job(**row | {"submitted_at": utc_now()} | fields)


def running(execution: str, job_id: int = 1, **fields: Any) -> Job:
    """Give a job that runs as `execution`, started under the engine's job id."""
    return a_job(status="RUNNING", engine="engine1", execution=execution, start_mark=f"{job_id}:0", **fields)


def intended(mark: str, **fields: Any) -> Job:
    """Give a job whose start is intended just now."""
    known = {"status": "SCHEDULED", "engine": "engine1", "attempts": 1, "starting_tick": tick()}
    return a_job(start_mark=mark, **known | fields)


def settings_in(folder: Path, **commands: tuple[str, ...]) -> Settings:
    """Give settings whose directories are in `folder`; they are not made."""
    return Settings(
        file=folder / "orchestrator.toml", database=f"sqlite:///{folder}/o.db", run_dir=folder / "run",
        log_dir=folder / "log", spools={}, engines={}, commands=commands,
    )  # fmt: skip


def engine_settings(kind: str, **options: Any) -> EngineSettings:
    """Give the table of an engine called engine1."""
    return EngineSettings(name="engine1", kind=kind, cpus=None, options=options, where="o.toml: engines.engine1")


def delphix(url: str, **options: Any) -> DelphixEngine:
    """Give an engine of kind delphix; its password is in the environment, as the fixture `secret` has it."""
    known = {"url": url, "username": "admin", "password": "env:ENGINE1_PASSWORD"}
    return DelphixEngine(engine_settings("delphix", **known | options), settings_in(Path("/nowhere")))
