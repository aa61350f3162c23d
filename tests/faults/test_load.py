"""Many callers at once, and many job files that wait at the start: all end right, and memory stays small."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from orchestrator.simulator import Simulator
from tests.faults.points import WHOLE
from tests.house import CLIENT, House, wait_for

CALLERS = 1_000 if WHOLE else 60
WAITING = 100_000 if WHOLE else 2_000
MEMORY = 200  # MiB, of each program

COMMANDS = '[engines.local]\nkind = "command"\ncpus = 16\npoll = "1s"\n[commands.true]\nrun = ["/bin/true"]'


def peak(program: subprocess.Popen[bytes]) -> int:
    """Give the most memory that a program ever had, in MiB."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_many_callers_at_once_all_end_as_their_jobs_did(masking_house: House) -> None:
    """Half run a command, half a masking job; one in eight fails, and one in eight is refused."""
    house = masking_house
    house.add_settings(
        COMMANDS.replace('"/bin/true"]', '"/bin/true"]\n[commands.seven]\nrun = ["/bin/sh", "-c", "exit 7"]')
    )
    kinds = [
        (["command=true", "NAME"], 0), (["MASK_CRM"], 0), (["command=seven", "NAME"], 7), (["MASK_BROKEN"], 1),
        (["command=true", "NAME"], 0), (["MASK_HR"], 0), (["priority=101", "NAME"], 65), (["MASK_CRM"], 0),
    ]  # fmt: skip
    with Simulator(seconds=0.05, cpus=20) as engine:
        house.add_engine("engine1", engine.url, cpus=20, more='poll = "500ms"')
        programs = [house.start(program) for program in ("watch", "schedule")]
        house.wait_for_engine("engine1", "UP")
        callers = []
        for number in range(CALLERS):
            words, status = kinds[number % len(kinds)]
            pairs, [job] = [word for word in words if "=" in word], [word for word in words if "=" not in word]
            caller = subprocess.Popen(
                ["bash", str(CLIENT), job, *pairs], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env=house.environment,
            )  # fmt: skip
            callers.append((caller, status))
        try:
            wrong = [
                (caller.args, caller.wait(600), status) for caller, status in callers if caller.wait(600) != status
            ]
        finally:
            for caller, _ in callers:
                caller.kill()
                caller.wait()
        assert not wrong, f"{len(wrong)}: {wrong[:5]}\n{house.log.read_text()[-3000:]}"
        assert house.query("SELECT count(*) FROM QUEUE") == [(CALLERS,)]
        assert len(engine.executions()) == sum(number % 8 in (1, 3, 5, 7) for number in range(CALLERS))
        assert not list(house.spool.glob("*.trafficlight"))
        memory = [peak(program) for program in programs]
        assert max(memory) < MEMORY
        told(house)
    print(f"\n{CALLERS} callers at once: all ended as their jobs did; {memory} MiB")


def test_many_job_files_that_wait_at_the_start_all_end(masking_house: House) -> None:
    house = masking_house
    with Simulator(seconds=0.02, cpus=200) as engine:
        house.add_engine("engine1", engine.url, cpus=200, more='poll = "200ms"')
        for number in range(WAITING):
            (house.spool / f"MASK_CRM@{number}.trafficlight").touch()
            (house.spool / f"MASK_CRM@{number}.job").touch()
        began = time.monotonic()
        programs = [house.start(program) for program in ("watch", "schedule")]
        patience = 120 + WAITING / 20
        wait_for(
            lambda: house.database.exists() and _left(house.spool) == 0, patience, lambda: house.log.read_text()[-3000:]
        )
        seconds = time.monotonic() - began
        wait_for(lambda: house.query("SELECT 1 FROM QUEUE WHERE released_at IS NULL LIMIT 1") == [], 60)
        assert house.query("SELECT status, count(*), max(attempts) FROM QUEUE") == [("FINISHED", WAITING, 1)]
        assert len(engine.executions()) == WAITING
        memory = [peak(program) for program in programs]
        assert max(memory) < MEMORY, memory
        told(house)
    print(f"\n{WAITING} job files at the start: all green after {seconds:.0f} s; {memory} MiB")


def _left(spool: Path) -> int:
    time.sleep(0.2)
    return sum(name.endswith((".job", ".trafficlight")) for name in os.listdir(spool))


def told(house: House) -> None:
    """See that nothing went wrong that the log tells."""
    log = house.log.read_text()
    assert "Traceback" not in log and " ERROR " not in log
