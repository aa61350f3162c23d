"""The client killed by -9 at any point: what it leaves in the spool is never taken for another caller's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from orchestrator.simulator import Simulator
from tests.faults.points import CHANGES, WHOLE, needs_strace
from tests.house import CLIENT, House, wait_for

CALLS = (*CHANGES, "mknod", "mknodat", "dup2", "pipe2", "wait4")


def killed_at(house: House, call: int) -> bool:
    """Run a client that is killed at its Nth call; whether it got that far."""
    calls = ",".join(CALLS)
    client = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={call}",
         "bash", str(CLIENT), "MASK_CRM"],
        stdin=subprocess.DEVNULL, capture_output=True, env=house.environment, timeout=60, check=False,
    )  # fmt: skip
    return client.returncode != 0


@needs_strace
def test_whenever_a_client_is_killed_the_next_caller_gets_its_own_answer(masking_house: House, tmp_path: Path) -> None:
    with Simulator(seconds=0.02, cpus=4) as engine:
        masking_house.add_engine("engine1", engine.url, cpus=4)
        masking_house.start()
        masking_house.wait_for_engine("engine1", "UP")
        call = tried = 0
        step = 1 if WHOLE else 7
        while killed_at(masking_house, call := call + step):
            tried += 1
            # The one that was killed may have left a light, a draft or a job: another caller of the same job comes by.
            caller = masking_house.call("MASK_BROKEN" if tried % 2 else "MASK_CRM")
            _, told = caller.communicate(timeout=20)
            assert caller.returncode == tried % 2, told
        assert tried

        wait_for(lambda: not masking_house.query("SELECT 1 FROM QUEUE WHERE released_at IS NULL"))
        names = [name for (name,) in masking_house.query("SELECT name FROM QUEUE")]
        assert len(names) == len(set(names))
        assert not list(masking_house.spool.glob("*.job"))
        statuses = masking_house.query("SELECT DISTINCT job, status FROM QUEUE ORDER BY job")
        assert statuses == [("MASK_BROKEN", "FAILED"), ("MASK_CRM", "FINISHED")]
        print(f"\nthe client was killed at {tried} points")
