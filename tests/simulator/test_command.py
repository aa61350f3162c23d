"""`simulate-engine` as a process of its own, and the file that names its jobs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from orchestrator.simulator import Simulator
from orchestrator.simulator.catalogue import CatalogueError, read_catalogue
from orchestrator.simulator.command import simulate_engine

COMMAND = [sys.executable, "-c", "from orchestrator.simulator.command import simulate_engine; simulate_engine()"]
JOBS = """
[[environments]]
name = "PAYROLL"
application = "HR"

[[environments]]
name = "SHOP"
id = 40

[[jobs]]
name = "MASK_PAY"
environment = "PAYROLL"
seconds = 0
rows = 12

[[jobs]]
name = "MASK_SHOP"
environment = "SHOP"
id = 41
max_memory = 2048
outcome = "warn"
"""

Run = Callable[..., "tuple[subprocess.Popen[str], str]"]


@pytest.fixture
def run() -> Iterator[Run]:
    """Start the command; gives the process and the URL that it printed."""
    with ExitStack() as stack:

        def started(*options: str) -> tuple[subprocess.Popen[str], str]:
            process = stack.enter_context(
                subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("listening on http://127.0.0.1:"), line
            return process, line.removeprefix("listening on ").rstrip("\n")

        yield started


def test_the_address_is_printed_as_json_too_in_one_line() -> None:
    with subprocess.Popen([*COMMAND, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        log_in(url)
        process.terminate()


def log_in(url: str, user: str = "admin", password: str = "admin") -> dict[str, str]:
    answer = requests.post(f"{url}/login", json={"username": user, "password": password}, timeout=10)
    assert answer.status_code == 200
    token: dict[str, str] = answer.json()
    return token


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_when_it_is_told_to(run: Run, how: signal.Signals) -> None:
    process, url = run()
    headers = log_in(url)
    jobs = requests.get(f"{url}/masking-jobs", headers=headers, timeout=10).json()
    assert jobs["_pageInfo"]["total"] == 7
    began = time.monotonic()
    process.send_signal(how)
    assert process.wait(5) == 0
    assert time.monotonic() - began < 1
    assert process.communicate() == ("", "")


def test_it_ends_at_once_while_a_request_hangs(run: Run) -> None:
    process, url = run("--fault", "hang")
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{url}/environments", headers=log_in(url), timeout=0.1)
    began = time.monotonic()
    process.terminate()
    assert process.wait(5) == 0
    assert time.monotonic() - began < 1


def test_its_options_are_those_of_the_engine(run: Run, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(JOBS)
    _, url = run(
        *("--user", "jane", "--password", "secret", "--cpus", "3", "--memory", "4096", "--seconds", "0.25"),
        *("--jobs", str(jobs), "--token-life", "60", "--first-id", "7"),
        *("--fault", "refuse_start", "--fault", "clock=-3600"),
    )
    headers = log_in(url, "jane", "secret")

    def rows(route: str) -> Any:
        return requests.get(f"{url}/{route}", headers=headers, timeout=10).json()["responseList"]

    assert [(each["environmentId"], each["environmentName"]) for each in rows("environments")] == [
        (7, "PAYROLL"),
        (40, "SHOP"),
    ]
    assert [(each["maskingJobId"], each["jobName"]) for each in rows("masking-jobs")] == [
        (7, "MASK_PAY"),
        (41, "MASK_SHOP"),
    ]
    assert rows("masking-jobs?environment_id=40")[0]["maxMemory"] == 2048
    assert "0.25 s" in rows("masking-jobs?environment_id=40")[0]["jobDescription"]
    assert [each["settingValue"] for each in rows("application-settings")] == ["3", "4096"]
    faults = requests.get(f"{url}/_simulator/faults", timeout=10).json()
    assert faults == {"refuse_start": 1, "clock": -3600}
    assert requests.post(f"{url}/executions", json={"jobId": 7}, headers=headers, timeout=10).status_code == 409
    execution = requests.post(f"{url}/executions", json={"jobId": 7}, headers=headers, timeout=10).json()
    assert (execution["executionId"], execution["status"], execution["rowsMasked"]) == (7, "SUCCEEDED", 12)


def test_a_port_that_is_in_use_is_one_line_and_status_69() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=20, check=False
        )
    assert process.returncode == 69
    assert process.stdout == ""
    assert process.stderr == f"simulate-engine: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_address_that_cannot_be_told_is_one_line_and_status_74() -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, text=True, timeout=20, check=False)
    assert process.returncode == 74
    assert process.stderr == "simulate-engine: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--cpus", "0"],
        ["--seconds", "nan"],
        ["--seconds", "-1"],
        ["--token-life", "0"],
        ["--token-life", "inf"],
        ["--first-id", "0"],
        ["--first-id", "2147483648"],
        ["--memory", "512"],
        ["--fault", "earthquake"],
        ["--fault", "clock"],
        ["--jobs", "/nowhere/jobs.toml"],
        ["--jobs", "/"],
        ["--jobs", ""],
        ["--nothing"],
        ["--port"],
        ["word"],
    ],
    ids=" ".join,
)
def test_a_bad_option_is_one_line_and_status_64(options: list[str]) -> None:
    result = CliRunner().invoke(simulate_engine, options)
    assert result.exit_code == 64
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("simulate-engine: ")


def test_it_tells_its_options() -> None:
    result = CliRunner().invoke(simulate_engine, ["--help"])
    assert result.exit_code == 0
    for option in ("port", "user", "password", "cpus", "seconds", "jobs", "token-life", "first-id", "fault", "memory"):
        assert f"--{option} " in result.stdout
    assert simulate_engine.name == "simulate-engine"


ENVIRONMENT = '[[environments]]\nname = "E"\n'
BAD_FILES = [
    ("", "environments"),
    ("x = 1", "x"),
    ("environments = 1", "environments"),
    (ENVIRONMENT, "jobs"),
    (ENVIRONMENT + "[[jobs]]\nid = 1", "jobs[1].name"),
    (ENVIRONMENT + '[[jobs]]\nname = "J"\n[[jobs]]\nname = "J"', "jobs[2].name"),
    (ENVIRONMENT + '[[jobs]]\nname = "J"\nid = 3\n[[jobs]]\nname = "K"\nid = 3', "jobs[2].id"),
    (ENVIRONMENT + '[[jobs]]\nname = "J"\nenvironment = "F"', "jobs[1].environment"),
    (ENVIRONMENT + '[[jobs]]\nname = "J"\nseconds = nan', "jobs[1].seconds"),
    (ENVIRONMENT + '[[jobs]]\nname = "J"\nrows = 1.5', "jobs[1].rows"),
    (ENVIRONMENT + '[[jobs]]\nname = "J"\nmulti_tenant = 1', "jobs[1].multi_tenant"),
    (ENVIRONMENT + '[[jobs]]\nname = "J"\nmax_memory = 99999', "jobs[1].max_memory"),
    (ENVIRONMENT + '[[jobs]]\nname = "J\\n"', "jobs[1].name"),
    (ENVIRONMENT + ENVIRONMENT, "environments[2].name"),
    (ENVIRONMENT + 'id = 5\n[[environments]]\nname = "F"\nid = 5', "environments[2].id"),
    ("[[", "not TOML"),
    ("x = " + "[" * 5000, "not TOML"),
    ("\0", "not TOML"),
]


@pytest.mark.parametrize(("text", "key"), BAD_FILES)
def test_a_jobs_file_that_is_wrong_is_named_with_its_key_in_one_line(tmp_path: Path, text: str, key: str) -> None:
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(text)
    with pytest.raises(CatalogueError) as error:
        read_catalogue(jobs, seconds=1, memory=16384, first_id=1)
    assert str(error.value).startswith(f"{jobs}: {key}")
    assert len(str(error.value).splitlines()) == 1


def test_ids_that_are_given_are_left_free_for_those_to_whom_they_were_given(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(ENVIRONMENT + '[[jobs]]\nname = "A"\n[[jobs]]\nname = "B"\nid = 1')
    with Simulator(jobs=jobs) as simulator:
        headers = log_in(simulator.url)
        rows = requests.get(f"{simulator.url}/masking-jobs", headers=headers, timeout=10).json()["responseList"]
    assert [(row["maskingJobId"], row["jobName"]) for row in rows] == [(1, "B"), (2, "A")]
