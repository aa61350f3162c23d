"""No job file has us signal a process that its owner could not signal by itself.

A reused pid, another boot, a pid that was born too late: tests/spool/test_signals.py and tests/unit/test_process.py.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from orchestrator.state import JobStatus
from tests.security.users import ANNA, BERT, as_root, given
from tests.spool.place import Place

pytestmark = as_root

LISTENER = "trap 'echo quit; exit 3' QUIT; echo ready; while :; do sleep 0.02; done"


@pytest.fixture
def processes() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start a process of each user that tells of SIGQUIT."""
    started = {}
    for name, uid in (("anna", ANNA), ("bert", BERT), ("root", 0)):
        process = subprocess.Popen(["bash", "-c", LISTENER], user=uid, stdout=subprocess.PIPE, text=True, cwd="/")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started[name] = process
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


def fail(place: Place, name: str, pid: int) -> str | None:
    """Have Bert's job fail, whose file names a process; the caller that was proven."""
    given(place.drop(name, f"job=A\npid={pid}\n"), BERT)
    place.take()
    caller = place.row(name).caller
    if place.row(name).status == "QUEUED":
        place.end(name, JobStatus.FAILED)
    place.release.release_all()
    return caller


@pytest.mark.parametrize("whose", ["anna", "root"])
def test_a_process_of_another_user_or_of_root_gets_no_signal(
    place: Place, processes: dict[str, subprocess.Popen[str]], whose: str
) -> None:
    assert fail(place, "CRM", processes[whose].pid) is None
    time.sleep(0.05)

    assert processes[whose].poll() is None
    assert place.light("CRM").read_text().startswith("FAILED ")


def test_its_own_process_does(place: Place, processes: dict[str, subprocess.Popen[str]]) -> None:
    assert fail(place, "CRM", processes["bert"].pid) is not None

    assert processes["bert"].wait(5) == 3


def test_pid_1_is_refused(place: Place) -> None:
    assert fail(place, "CRM", 1) is None

    assert "pid: not a whole number from 2 to" in place.why_rejected("CRM")


def test_the_orchestrator_itself_is_nobodys_caller(place: Place) -> None:
    assert fail(place, "CRM", os.getpid()) is None
