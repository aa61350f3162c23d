"""What the command line prints, and what it ends with where that cannot be printed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from orchestrator.cli import run
from orchestrator.store import database
from tests.house import ORCHESTRATOR, House


def shell(house: House, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `$O` is the command line with the settings."""
    program = f"O='{' '.join(ORCHESTRATOR)} --config {house.settings}'; {line}"
    return subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, timeout=30, env=house.environment, check=False
    )


@pytest.mark.parametrize("command", ["version", "jobs --json", "show 1", "--help"])
def test_a_closed_stdout_is_no_fault(house: House, command: str) -> None:
    done = shell(house, f"$O {command} >&-")

    assert done.returncode == (1 if command == "show 1" else 0), done.stderr
    assert "fault" not in done.stderr


def test_with_all_descriptors_closed_no_file_is_taken_for_the_output(house: House) -> None:
    assert shell(house, "$O status <&- >&- 2>&-").returncode == 1  # nothing serves the spool
    with house.database.open("rb") as file:
        assert file.read(15) == b"SQLite format 3"


@pytest.mark.parametrize("command", ["jobs", "version --json", "--help", "engine --help"])
def test_a_reader_that_is_gone_gives_141_in_silence(house: House, command: str) -> None:
    done = shell(house, f"(sleep 0.1; exec $O {command}) | true; echo ${{PIPESTATUS[0]}}")

    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.parametrize("command", ["jobs", "version --json", "--help"])
def test_an_output_that_cannot_be_written_is_named(house: House, command: str) -> None:
    done = shell(house, f"$O {command} >/dev/full")

    assert (done.returncode, done.stderr) == (
        74, "orchestrator: the output cannot be written: No space left on device\n"
    )  # fmt: skip


def test_a_complaint_that_cannot_be_written_changes_no_status(house: House) -> None:
    assert shell(house, "$O jobz 2>/dev/full").returncode == 64


@pytest.mark.parametrize(("command", "status", "told"), [
    (r"show $'\xff\xfe\n'", 1, r"no job \udcff\udcfe\n"),
    ("show 99999999999999999999999999", 1, "no job 99999999999999999999999999"),
    ("cancel 99999999999999999999999999", 1, "no job 99999999999999999999999999"),
    (r"engine remove local $'\xff'", 64, r"there is no \udcff of local"),
    (r"engine add $'\xff'", 64, r"no engine \udcff"),
    ("jobs --limit 0", 64, "--limit"),
])  # fmt: skip
def test_what_no_row_can_have_is_not_found(house: House, command: str, status: int, told: str) -> None:
    done = shell(house, f"$O {command}")

    assert done.returncode == status
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_limit_above_all_numbers_lists_all_jobs(house: House) -> None:
    assert json.loads(shell(house, "$O jobs --json --limit 99999999999999999999999").stdout) == []


@pytest.mark.parametrize("group", ["", "engine"])
def test_without_a_command_the_help_is_shown_as_it_is_and_usage_is_wrong(house: House, group: str) -> None:
    done = shell(house, f"$O {group}")

    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == shell(house, f"$O {group} --help").stdout
    assert len(done.stderr.splitlines()) > 10


@pytest.mark.parametrize(("level", "status"), [("", 0), ("debug", 0), ("ERROR", 0), ("foo", 64), ("10", 64)])
def test_the_level_of_the_log_is_one_of_four_words(house: House, level: str, status: int) -> None:
    done = shell(house, f"ORCHESTRATOR_LOG={level} $O version")

    told = "orchestrator: ORCHESTRATOR_LOG must be DEBUG, INFO, WARNING, ERROR or empty\n"
    assert (done.returncode, done.stderr) == (status, told if status else "")


def test_a_database_that_somebody_holds_locked_says_how_to_find_out_who(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    house.run("jobs")
    opened = database.open_database
    monkeypatch.setattr(database, "open_database", lambda url: opened(url, busy_timeout=0.05))
    house.query("PRAGMA journal_mode = DELETE")
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
         "c.execute('BEGIN EXCLUSIVE'); print(flush=True); sys.stdin.read()", str(house.database)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        status = run(["--config", str(house.settings), "cancel", "1"])
    database.close_database()

    assert status == 74
    assert (
        f"database is locked: somebody else holds it for long; `fuser -v {house.database}`" in capsys.readouterr().err
    )
