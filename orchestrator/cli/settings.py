"""What most commands begin with: the settings, and the database."""

from __future__ import annotations

import click

from orchestrator.settings import Settings, find_settings, load_settings


def settings_of(ctx: click.Context) -> Settings:
    """Read the settings that this command line means. Raises SettingsError."""
    return load_settings(find_settings(ctx.find_root().obj))


def open_store(ctx: click.Context) -> Settings:
    """Read the settings and open their database. Raises SettingsError or StoreError."""
    from orchestrator.store.database import open_database

    settings = settings_of(ctx)
    open_database(settings.database)
    return settings
