"""Secrets by reference: from the environment, a file or the keyring."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from orchestrator.engines.secret import is_reference, read_secret
from orchestrator.errors import LoginRefused

from .make import SECRET


class _Ring(KeyringBackend):
    """A keyring that is a dict."""

    priority: Any = 1
    kept: dict[tuple[str, str], str]

    def get_password(self, service: str, username: str) -> str | None:
        if service == "locked":
            raise KeyringLocked("locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.fixture
def ring() -> Iterator[None]:
    before = keyring.get_keyring()
    make: Any = _Ring  # its base has no types
    backend = make()
    backend.kept = {("orchestrator", "engine1/admin"): SECRET}
    keyring.set_keyring(backend)
    yield
    keyring.set_keyring(before)


@pytest.mark.parametrize("text", ["env:A", "file:/a", "keyring:s/u"])
def test_a_reference_is_one(text: str) -> None:
    assert is_reference(text)


@pytest.mark.parametrize("text", ["", "env", "env:", "file:a", "file:", "keyring:s", "vault:a/b", "geheim", "ENV:A"])
def test_anything_else_is_none(text: str) -> None:
    assert not is_reference(text)


def test_a_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", SECRET)
    assert read_secret("env:A_SECRET") == SECRET
    monkeypatch.delenv("A_SECRET")
    with pytest.raises(LoginRefused, match="A_SECRET"):
        read_secret("env:A_SECRET")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file_without_its_lines_end(tmp_path: Path, end: str) -> None:
    (tmp_path / "s").write_bytes(f" {SECRET} {end}".encode())
    (tmp_path / "s").chmod(0o600)
    assert read_secret(f"file:{tmp_path}/s") == f" {SECRET} "


def test_a_file_that_cannot_be_read_is_told_without_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(SECRET.encode() + b"\xff")
    (tmp_path / "s").chmod(0o600)
    with pytest.raises(LoginRefused, match="cannot be read") as refused:
        read_secret(f"file:{tmp_path}/s")
    assert SECRET not in str(refused.value)


@pytest.mark.usefixtures("ring")
def test_a_secret_comes_from_the_keyring() -> None:
    assert read_secret("keyring:orchestrator/engine1/admin") == SECRET
    with pytest.raises(LoginRefused, match="no such entry"):
        read_secret("keyring:orchestrator/nobody")
    with pytest.raises(LoginRefused, match="cannot be read: locked"):
        read_secret("keyring:locked/nobody")


def test_without_the_keyring_package_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(LoginRefused, match=r"install orchestrator\[keyring\]"):
        read_secret("keyring:a/b")
