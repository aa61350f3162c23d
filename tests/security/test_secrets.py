"""A password is read where it is needed, and stands nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.engines.secret import read_secret
from orchestrator.errors import LoginRefused, SettingsError
from orchestrator.settings import load_settings
from orchestrator.simulator import Simulator
from tests.house import ORCHESTRATOR, House
from tests.security.users import ANNA, as_root

SECRET = "geheim-4711-xyzzy"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o606])
def test_a_password_file_of_ours_that_others_may_read_or_write_is_refused(secret: Path, mode: int) -> None:
    if os.geteuid() == 0 and mode == 0o640:
        pytest.skip("of root: see below")
    secret.chmod(mode)
    with pytest.raises(LoginRefused, match=rf"is open to others \(mode {mode:03o}\): chmod 600 ") as refused:
        read_secret(f"file:{secret}")

    assert SECRET not in str(refused.value)


@as_root
@pytest.mark.parametrize(
    ("owner", "mode", "why"),
    [
        (0, 0o640, None),  # root gives it to the group of whoever runs the programs
        (0, 0o600, None),
        (ANNA, 0o400, None),
        (ANNA, 0o440, "is open to others"),
        (0, 0o660, "is open to others"),
        (0, 0o644, "is open to others"),
        (20_999, 0o600, "belongs to uid 20999"),
    ],
)
def test_a_password_file_is_its_readers_or_roots(
    secret: Path, monkeypatch: pytest.MonkeyPatch, owner: int, mode: int, why: str | None
) -> None:
    os.chown(secret, owner, -1)
    secret.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: ANNA)
    if why is None:
        assert read_secret(f"file:{secret}") == SECRET
        return
    with pytest.raises(LoginRefused, match=why):
        read_secret(f"file:{secret}")


def test_a_fifo_in_the_place_of_a_password_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(LoginRefused, match="is not a regular file"):
        read_secret(f"file:{tmp_path}/fifo")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o620, 0o666])
def test_settings_that_others_may_write_are_refused(house: House, mode: int) -> None:
    house.settings.chmod(mode)
    with pytest.raises(SettingsError, match=rf"may write to it \(mode {mode:03o}\): chmod go-w "):
        load_settings(house.settings)


@as_root
def test_a_program_of_root_takes_no_settings_of_another_user(house: House) -> None:
    os.chown(house.settings, ANNA, ANNA)
    done = house.run("up", status=78)

    assert f"belongs to uid {ANNA}, which could have root run anything" in done.stderr


def test_the_password_itself_in_the_settings_is_refused_and_not_repeated(masking_house: House) -> None:
    masking_house.add_settings(
        f'[engines.e]\nkind = "delphix"\nurl = "http://127.0.0.1:9/"\nusername = "u"\npassword = "{SECRET}"'
    )
    done = masking_house.run("status", status=78)

    assert "must be a reference" in done.stderr
    assert SECRET not in done.stderr + done.stdout


def everything_said(house: House) -> str:
    """Give all that commands print, in both forms."""
    said = ""
    for command in (("jobs",), ("show", "1"), ("status",), ("engine", "list"), ("engine", "test", "engine1")):
        for form in ((), ("--json",)):
            done = house.run(*command, *form, status=None)
            said += done.stdout + done.stderr
    return said


@pytest.mark.parametrize("right", [True, False], ids=["a login that works", "a login that is refused"])
def test_a_password_is_in_no_file_no_command_line_and_no_output(
    masking_house: House, secret: Path, right: bool
) -> None:
    house = masking_house
    house.environment |= {"ORCHESTRATOR_LOG": "DEBUG"}
    with Simulator(seconds=0.05, password=SECRET if right else "another") as simulator:
        house.add_settings(
            f'[engines.engine1]\nkind = "delphix"\nurl = "{simulator.url}"\nusername = "admin"\n'
            f'password = "file:{secret}"\ncpus = 1'
        )
        house.start("up")
        house.drop("MASK_CRM")
        if right:
            assert house.verdict("MASK_CRM") is None
        else:
            house.wait_for_engine("engine1", "DOWN")
        said = everything_said(house)
        words = b"".join(_read(process / "cmdline") for process in Path("/proc").glob("[0-9]*"))

    assert "engine1" in said
    assert SECRET not in said
    assert SECRET.encode() not in words
    holding = [path for path in house.folder.rglob("*") if path.is_file() and SECRET.encode() in _read(path)]
    assert holding == [secret]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


FAULT = """
import sys
import json
from requests.adapters import HTTPAdapter
def fault(adapter, request, **options):
    assert json.loads(request.body)["password"]
    raise RuntimeError("a fault of ours")
HTTPAdapter.send = fault
from orchestrator.cli import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize("debug", [True, False])
def test_a_traceback_does_not_show_a_password(masking_house: House, secret: Path, debug: bool) -> None:
    masking_house.add_settings(
        f'[engines.engine1]\nkind = "delphix"\nurl = "http://127.0.0.1:9/"\nusername = "u"\npassword = "file:{secret}"'
    )
    done = subprocess.run(
        [sys.executable, "-c", FAULT, "--config", str(masking_house.settings), "engine", "test", "engine1"],
        capture_output=True, text=True, check=False,
        env=masking_house.environment | ({"ORCHESTRATOR_DEBUG": "1"} if debug else {}),
    )  # fmt: skip

    assert "a fault of ours" in done.stderr
    assert ("Traceback" in done.stderr) is debug
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("command", [("watch", "--once"), ("jobs",)])
def test_a_database_is_made_for_our_eyes_only_whatever_the_umask(house: House, command: tuple[str, ...]) -> None:
    assert ORCHESTRATOR
    house.run(*command, status=None)

    assert house.database.stat().st_mode & 0o777 == 0o600


@as_root
@pytest.mark.parametrize(("more", "warned"), [("", True), ('[engines.local]\nkind = "command"\n', False)])
def test_root_that_is_not_needed_is_told_once(masking_house: House, more: str, warned: bool) -> None:
    masking_house.add_settings(more)
    masking_house.start("watch")

    assert masking_house.log.read_text().count("runs as root, which these settings do not need") == int(warned)


@as_root
def test_root_that_serves_other_users_is_not_told(masking_house: House) -> None:
    masking_house.spool.chmod(0o3770)
    masking_house.start("watch")

    assert "runs as root" not in masking_house.log.read_text()
