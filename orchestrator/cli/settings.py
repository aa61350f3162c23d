"""What most commands begin with: the settings, and the database."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import click

from orchestrator.settings import EngineSettings, Settings, find_settings, load_settings


def settings_of(ctx: click.Context) -> Settings:
    """Read the settings that this command line means. Raises SettingsError."""
    return load_settings(find_settings(ctx.find_root().obj))


def checked_settings_of(ctx: click.Context) -> Settings:
    """Read the settings, and check what each engine alone understands of them. Raises SettingsError."""
    settings = settings_of(ctx)
    check_engines(settings)
    return settings


def check_engines(settings: Settings) -> None:
    """Check the own keys of each engine; none is asked anything. Raises SettingsError."""
    from importlib.metadata import entry_points

    from orchestrator.engines.base import ENTRY_POINTS, make_engine

    modules = {point.name: point.module for point in entry_points(group=ENTRY_POINTS)}
    for engine in settings.engines.values():
        read = _settings_reader(modules.get(engine.kind, ""))
        if read is not None:
            read(engine)
        else:
            make_engine(engine, settings).close()  # making one checks, too


def _settings_reader(module: str) -> Callable[[EngineSettings], object] | None:
    """Give `read_settings` of a kind that has a module `settings`, beside an engine that takes long to load."""
    try:
        found: Callable[[EngineSettings], object] | None = import_module(f"{module}.settings").read_settings
    except (ModuleNotFoundError, AttributeError, TypeError):
        return None
    return found


def open_store(ctx: click.Context) -> Settings:
    """Read the settings and open their database. Raises SettingsError or StoreError."""
    settings = settings_of(ctx)
    open_database(settings)
    return settings


def open_database(settings: Settings) -> None:
    """Open the database of the settings, for our own eyes where it is made. Raises StoreError."""
    from orchestrator.confine import own_files_only
    from orchestrator.opening import open_queue

    own_files_only()
    open_queue(settings)
