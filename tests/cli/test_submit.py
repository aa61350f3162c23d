"""`orchestrator submit`: what it prints, and what it ends with."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.house import ORCHESTRATOR, House, wait_for

RED = 'FAILED id=1 exit=7 reason="rows rejected"\n'


@pytest.fixture
def spool(house: House) -> Path:
    (house.spool / ".heartbeat").touch()
    return house.spool


def start(house: House, line: str) -> subprocess.Popen[str]:
    """Start a line of bash in which `$SUBMIT` is the command."""
    started = subprocess.Popen(
        ["bash", "-c", f"SUBMIT='{' '.join(ORCHESTRATOR)} --config {house.settings} submit'; {line}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=house.environment,
    )  # fmt: skip
    house.callers.append(started)
    return started


def take(spool: Path) -> Path:
    """Take the one job file; its light."""
    wait_for(lambda: list(spool.glob("*.job")))
    [job] = spool.glob("*.job")
    job.unlink()
    return job.with_suffix(".trafficlight")


def left(spool: Path) -> list[str]:
    return sorted(file.name for file in spool.iterdir() if file.name != ".heartbeat")


@pytest.mark.parametrize("output", [">&-", ">/dev/full", "| true; exit ${PIPESTATUS[0]}"])
def test_with_wait_a_name_that_cannot_be_printed_decides_nothing(house: House, spool: Path, output: str) -> None:
    for options in ("--wait", "--wait --json"):
        caller = start(house, f"$SUBMIT {options} MASK_CRM {output}")
        take(spool).write_text(RED)
        _, err = caller.communicate(timeout=20)

        assert (caller.returncode, err) == (7, RED)
        assert left(spool) == []


@pytest.mark.parametrize(("output", "status"), [(">/dev/full", 74), ("| true; exit ${PIPESTATUS[0]}", 141)])
@pytest.mark.parametrize("options", ["", "--json"])
def test_a_job_whose_name_cannot_be_printed_is_not_submitted(
    house: House, spool: Path, output: str, status: int, options: str
) -> None:
    caller = start(house, f"$SUBMIT {options} MASK_CRM {output}")
    caller.communicate(timeout=20)

    assert caller.returncode == status
    assert left(spool) == []


def test_a_closed_stdout_is_the_callers_own_wish(house: House, spool: Path) -> None:
    caller = start(house, "$SUBMIT MASK_CRM >&-")
    caller.communicate(timeout=20)

    assert caller.returncode == 0
    assert len(left(spool)) == 2


def test_json_gives_the_name(house: House, spool: Path) -> None:
    found = house.json("submit", "MASK_CRM")

    assert list(found) == ["name"]
    assert left(spool) == [f"{found['name']}.job", f"{found['name']}.trafficlight"]


@pytest.mark.parametrize(("light", "status", "line"), [(None, 0, None), (RED + "more\n", 7, RED.strip())])
def test_json_with_wait_gives_the_end_too_as_one_object(
    house: House, spool: Path, light: str | None, status: int, line: str | None
) -> None:
    caller = start(house, "$SUBMIT --wait --json MASK_CRM")
    file = take(spool)
    if light is None:
        file.unlink()
    else:
        file.write_text(light)
    out, err = caller.communicate(timeout=20)

    assert caller.returncode == status
    assert json.loads(out) == {"name": file.stem, "status": status, "light": line}
    assert err == (light or "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_one_that_waits_withdraws_the_job(house: House, spool: Path, number: signal.Signals) -> None:
    caller = start(house, "exec $SUBMIT --wait MASK_CRM")
    wait_for(lambda: list(spool.glob("*.job")))
    caller.send_signal(number)
    out, err = caller.communicate(timeout=20)

    assert caller.returncode == 128 + number
    assert f"job {out.strip()} was withdrawn before it was taken" in err
    assert left(spool) == []


def test_a_signal_after_the_job_was_taken_cancels_it(house: House, spool: Path) -> None:
    caller = start(house, "exec $SUBMIT --wait MASK_CRM")
    light = take(spool)
    caller.send_signal(signal.SIGTERM)
    caller.communicate(timeout=20)

    assert caller.returncode == 143
    assert left(spool) == [f"{light.stem}.cancel"]
