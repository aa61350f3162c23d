"""`make demo` and `make up`, with short jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import wait_for

DEMO = (sys.executable, "-m", "orchestrator.demo", "--seconds", "2")
UP = (sys.executable, "-m", "orchestrator.demo.up", "--seconds", "1")
CLIENT = Path(__file__).parents[2] / "orchestrator" / "orchestrator.bash"


def mentioning(folder: Path) -> list[str]:
    """The command lines and environments of processes that have to do with a folder, but for this one."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in words:
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(tmp_path)}


def test_each_caller_of_the_demo_gets_what_it_should_and_nothing_is_left(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(DEMO, env=environment, capture_output=True, text=True, timeout=40, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 8 got what they should, and QUEUE says the same: " in done.stdout
    assert "!" not in done.stdout
    assert os.listdir(tmp_path) == []
    wait_for(lambda: mentioning(tmp_path) == [], 3, lambda: str(mentioning(tmp_path)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_early_leaves_nothing(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    with subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        try:
            assert demo.stdout
            for line in demo.stdout:
                if "MASK_CRM  " in line and " s " in line:
                    break
            demo.send_signal(number)
            rest = demo.stdout.read()
            status = demo.wait(20)
        finally:
            demo.kill()

    assert status == 128 + number
    assert f"ended by {number.name}: all is stopped and removed" in rest
    assert os.listdir(tmp_path) == []
    wait_for(lambda: mentioning(tmp_path) == [], 3, lambda: str(mentioning(tmp_path)))


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    log = tmp_path / "up.log"
    with log.open("w") as output:
        process = subprocess.Popen(UP, cwd=tmp_path, stdout=output, stderr=output, text=True)
    try:
        wait_for(lambda: "Ctrl-C ends all" in log.read_text() or process.poll() is not None, 30, log.read_text)
        yield process, tmp_path / "demo-run"
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)


def test_up_serves_its_spool_until_it_is_interrupted(up: tuple[subprocess.Popen[str], Path]) -> None:
    process, directory = up
    called = subprocess.run(["bash", str(CLIENT), "--spool", directory / "spool", "MASK_CRM"], timeout=20, check=False)
    second = subprocess.run(UP, cwd=directory.parent, capture_output=True, text=True, timeout=20, check=False)
    process.send_signal(signal.SIGINT)

    assert called.returncode == 0
    assert second.returncode == 1
    assert "another `make up` runs" in second.stderr
    assert process.wait(20) == 0
    assert mentioning(directory) == []
