"""The wall clock jumps by hours, forth and back: nothing times out, nothing hangs, no caller is sent away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orchestrator.simulator import Simulator
from tests.faults.points import SETTINGS, WHOLE
from tests.house import CLIENT, House, wait_for

HOURS = (3, -3, 26, 0) if WHOLE else (-3,)  # that the clock is off, one after the other
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class Clock:
    """The wall clock of all programs of a house."""

    def __init__(self, house: House) -> None:
        self._file = house.folder / "clock"
        path = os.pathsep.join([str(Path(__file__).parent / "wall"), str(Path(__file__).parents[2])])
        house.environment |= {"WALL_CLOCK_OFF": str(self._file), "PYTHONPATH": path}
        self.jump(0)

    def jump(self, hours: float) -> None:
        """Set it so many hours off the real one."""
        draft = self._file.with_suffix(".new")
        draft.write_text(str(int(hours * 3600)))
        draft.rename(self._file)
        self.off = hours * 3600

    def age_of(self, file: Path) -> float:
        """Give the seconds since a file was touched, on this clock."""
        return abs(time.time() + self.off - file.stat().st_mtime) if file.exists() else float("inf")


def test_nothing_times_out_when_the_wall_clock_jumps(masking_house: House) -> None:
    """Each jump while jobs run that have a timeout, one is being cancelled, and a start got no answer."""
    house = masking_house
    clock = Clock(house)
    house.add_settings('[engines.local]\nkind = "command"\ncpus = 4\n[commands.sleep]\nrun = ["/bin/sleep", "2"]')
    with Simulator(seconds=2.0, cpus=8) as engine:
        engine.put_job(name="MASK_HANGS", environment="DEMO", outcome="hang")
        house.add_engine("engine1", engine.url, cpus=8, more=SETTINGS)
        for program in ("watch", "schedule"):
            house.start(program)
        house.wait_for_engine("engine1", "UP")
        heartbeat = house.spool / ".heartbeat"
        wait_for(heartbeat.exists)
        for number, hours in enumerate(HOURS):
            names = {what: f"{what}{number}" for what in ("COMMAND", "MASKING", "HANGS", "LOST")}
            house.drop(names["COMMAND"], "command=sleep", "timeout=60")
            house.drop(names["MASKING"], "job=MASK_CRM", "timeout=60")
            house.drop(names["HANGS"], "job=MASK_HANGS", "timeout=60")
            for what in ("COMMAND", "MASKING", "HANGS"):
                house.wait_for_status(names[what], "RUNNING")
            engine.fault(lost_answer=1)
            house.drop(names["LOST"], "job=MASK_HR", "timeout=60")
            clock.jump(hours)
            for what in ("COMMAND", "MASKING", "LOST"):
                assert house.verdict(names[what], 30) is None
            assert house.light(names["HANGS"]) == ""
            (house.spool / f"{names['HANGS']}.cancel").touch()
            assert (house.verdict(names["HANGS"]) or "").startswith("CANCELLED ")
            # Until the next beat the last one looks too old; the client waits for 20 s before it believes that.
            wait_for(lambda: clock.age_of(heartbeat) < 15, 15, lambda: f"the heartbeat is {clock.age_of(heartbeat)} s")
            wait_for(lambda: clock.age_of(house.folder / "run" / "schedule.beat") < 15, 15)
        assert house.query("SELECT count(*) FROM QUEUE WHERE status = 'TIMEOUT'") == [(0,)]
        wait_for(lambda: house.query("SELECT DISTINCT status FROM ENGINES") == [("FREE",)])
        assert len(engine.executions()) == 3 * len(HOURS)
        assert house.log.read_text().count(" is down") == len(HOURS)  # the start without an answer, and no more
    print(f"\n{len(HOURS)} jumps of the wall clock, {4 * len(HOURS)} jobs: 0 timed out")


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("hours", [3, -3] if WHOLE else [3])
def test_a_client_is_not_misled_when_the_wall_clock_jumps(house: House, hours: int) -> None:
    """Neither does `--wait` end, nor is a job withdrawn whose spool was served a moment ago."""
    clock = house.folder / "faketime"
    clock.write_text("+0\n")
    house.environment |= {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
        "ORCHESTRATOR_HEARTBEAT_GRACE": "4", "ORCHESTRATOR_HEARTBEAT_EVERY": "1",
    }  # fmt: skip
    heartbeat = house.spool / ".heartbeat"
    heartbeat.touch()
    # A shell that asks date(1) for the time, so that the clock that it sees jumps with the rest.
    caller = house.script(f"exec dash {CLIENT} --wait 60 MASK_CRM")  # nothing takes it
    wait_for(lambda: list(house.spool.glob("*.job")))
    time.sleep(0.5)
    draft = clock.with_suffix(".new")
    draft.write_text(f"{hours * 3600:+}\n")
    draft.rename(clock)
    time.sleep(2.5)  # it finds the heartbeat old, or of the future
    assert caller.poll() is None, caller.communicate()
    os.utime(heartbeat, (time.time() + hours * 3600,) * 2)
    time.sleep(1.5)
    assert caller.poll() is None, caller.communicate()
    [job] = house.spool.glob("*.job")
    job.with_suffix(".trafficlight").unlink()
    job.unlink()
    assert caller.wait(10) == 0
