"""`watch`, `schedule` and what cron runs: the settings they check, and what they print."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import daemon, once
from orchestrator.cli import run
from orchestrator.store.database import close_database
from orchestrator.store.models import database
from tests.house import House, wait_for

MISTAKES = [
    ('kind = "foo"', "kind: there is no 'foo'; there are: command, delphix"),
    ('kind = "command"\ncpu = 2', "cpu: unknown key (did you mean cpus?)"),
    ('kind = "command"\npoll = "often"', "poll: not a duration"),
    ('kind = "delphix"\nusername = "u"\npassword = "env:P"', "url: is missing"),
    ('kind = "delphix"\nurl = "http://e/"\nusername = "u"\npassword = "env:P"\ncpu = 2', "cpu: unknown key"),
]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    if database.obj is not None:
        close_database()


@pytest.mark.parametrize("command", [["status"], ["watch"], ["watch", "--once"]])
@pytest.mark.parametrize(("table", "told"), MISTAKES)
def test_a_mistake_in_an_engines_own_keys_is_found_at_the_start(
    house: House,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    table: str,
    told: str,
) -> None:
    house.add_settings(f"[engines.wrong]\n{table}")
    monkeypatch.setattr(daemon, "run_daemon", lambda settings, make_parts: make_parts(settings))

    assert run(["--config", str(house.settings), *command]) == 78
    assert f"orchestrator.toml: engines.wrong.{told}" in capsys.readouterr().err


def test_watch_that_rereads_such_a_mistake_goes_on_with_the_old_settings(house: House) -> None:
    program = house.start("watch")
    house.add_settings("[engines.wrong]\n" + MISTAKES[1][0])
    program.send_signal(signal.SIGHUP)
    wait_for(lambda: "settings are not reread" in house.log.read_text())

    assert "engines.wrong.cpu: unknown key" in house.log.read_text()


def test_engines_are_checked_without_loading_a_client(masking_house: House) -> None:
    masking_house.add_engine("engine1", "http://127.0.0.1:9/masking/api")
    look = "import sys; from orchestrator.cli import run; run(sys.argv[1:]); print('requests' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", look, "--config", str(masking_house.settings), "status"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.splitlines()[-1] == "False"


def test_once_commands_print_what_was_done_as_one_object(house: House) -> None:
    assert house.json("watch", "--once") == {"taken": 0}
    house.drop("ONE", "command=true")
    assert house.json("watch", "--once") == {"taken": 1}
    assert house.json("scheduler", "--once") == {"engines": 1}
    assert house.json("checkstatus", "--once") == {"released": True}
    assert house.json("schedule", "--once") == {"engines": 0, "released": True}


def test_a_caller_that_cannot_be_released_is_in_the_object_too(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "checkstatus_once", lambda settings: False)

    assert run(["--config", str(house.settings), "checkstatus", "--once", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"released": False}


@pytest.mark.parametrize("program", ["watch", "schedule"])
def test_a_program_that_goes_on_prints_no_json(house: House, program: str) -> None:
    assert "--json needs --once" in house.run(program, "--json", status=64).stderr


def test_a_spool_that_is_gone_is_named(house: House, tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    house.add_settings(f'[spools.night]\npath = "{tmp_path}/night"')
    (house.spool / ".orchestrator").touch()  # not a folder
    done = house.run("watch", "--once", status=1)

    assert f"spool default ({house.spool}) cannot be used: " in done.stderr
    shutil.rmtree(tmp_path / "night")
    assert "spools.night.path: the directory is missing" in house.run("watch", "--once", status=78).stderr
