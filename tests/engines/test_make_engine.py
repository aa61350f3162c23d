"""Kinds of engines are found by entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from orchestrator.engines import base
from orchestrator.engines.base import Engine, make_engine
from orchestrator.engines.command import CommandEngine
from orchestrator.engines.delphix import DelphixEngine
from orchestrator.errors import SettingsError

from .make import engine_settings, settings_in

DELPHIX = {"url": "https://e/masking/api", "username": "u", "password": "env:P"}


@pytest.mark.parametrize(
    ("kind", "made", "options"), [("command", CommandEngine, {}), ("delphix", DelphixEngine, DELPHIX)]
)
def test_a_kind_that_comes_with_orchestrator_is_found(
    kind: str, made: type[Engine], options: dict[str, str], tmp_path: Path
) -> None:
    engine = make_engine(engine_settings(kind, **options), settings_in(tmp_path))
    assert type(engine) is made
    assert (engine.name, engine.kind) == ("engine1", kind)
    engine.close()


def test_a_kind_of_another_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "orchestrator.engines.command:CommandEngine", base.ENTRY_POINTS)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == base.ENTRY_POINTS else [])
    assert make_engine(engine_settings("mine"), settings_in(tmp_path)).kind == "mine"


def test_an_unknown_kind_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as told:
        make_engine(engine_settings("delfix"), settings_in(tmp_path))
    assert str(told.value) == "o.toml: engines.engine1.kind: there is no 'delfix'; there are: command, delphix"


@pytest.mark.parametrize(("kind", "options"), [("command", {"ur": 1}), ("delphix", DELPHIX | {"polll": 1})])
def test_a_key_that_the_kind_does_not_know_is_told(kind: str, options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"o\.toml: engines\.engine1\.\w+: unknown key"):
        make_engine(engine_settings(kind, **options), settings_in(tmp_path))
