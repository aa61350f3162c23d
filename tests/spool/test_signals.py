"""P6: SIGQUIT goes to the proven caller only."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from orchestrator.process import ProcessIdentity, identify
from orchestrator.state import JobStatus
from orchestrator.store.models import Queue
from tests.spool.place import Place, bash, output_of, until

CALLER = """
trap 'echo "quit: $(head -c 6 N.trafficlight)"; exit 131' QUIT
: > N.trafficlight
printf 'job=J\\npid=%s\\n' $$ > .N.tmp && mv .N.tmp N.job
n=0
while [ $n -lt 200 ] && [ ! -e go ]; do sleep 0.02; n=$((n + 1)); done
echo not signalled
"""


@pytest.fixture
def caller(place: Place) -> subprocess.Popen[str]:
    """Start a bash that waits for its signal, and take its job."""
    started = bash(CALLER, place.path)
    until(lambda: place.take(), "the job file")
    return started


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMEOUT])
def test_a_caller_is_sent_sigquit_after_its_light_was_rewritten(
    place: Place, caller: subprocess.Popen[str], status: JobStatus
) -> None:
    place.end("N", status)
    place.release.release_all()

    assert output_of(caller) == f"quit: {status[:6]}\n"
    assert caller.returncode == 131


def not_signalled(place: Place, caller: subprocess.Popen[str]) -> bool:
    time.sleep(0.05)
    (place.path / "go").touch()
    return output_of(caller) == "not signalled\n"


def test_a_caller_whose_job_finished_is_not_signalled(place: Place, caller: subprocess.Popen[str]) -> None:
    place.finish("N")
    place.release.release_all()

    assert not_signalled(place, caller)


@pytest.mark.parametrize("other", ["start", "boot", "owner", "pid"])
def test_nobody_else_is_signalled(place: Place, caller: subprocess.Popen[str], other: str) -> None:
    """The pid was given again, the host was booted, or the process is another user's."""
    known = place.row("N").caller
    assert known is not None
    who = ProcessIdentity.parse(known)
    assert who == identify(caller.pid)
    place.end("N", JobStatus.FAILED)
    if other == "owner":
        Queue.update(owner=12345).execute()
    else:
        changed = {
            "start": ProcessIdentity(who.pid, who.start - 1, who.boot),
            "boot": ProcessIdentity(who.pid, who.start, "another-boot"),
            "pid": ProcessIdentity(2**22 - 1, who.start, who.boot),
        }[other]
        Queue.update(caller=str(changed)).execute()
    assert place.release.release_all()

    assert not_signalled(place, caller)
    assert place.light("N").read_text().startswith("FAILED ")


def test_a_caller_that_is_gone_is_no_trouble(place: Place, caller: subprocess.Popen[str]) -> None:
    (place.path / "go").touch()
    output_of(caller)
    place.end("N", JobStatus.FAILED)

    assert place.release.release_all()
    assert place.light("N").read_text().startswith("FAILED ")


def test_a_pid_that_was_born_after_the_file_was_written_is_not_the_caller(place: Place) -> None:
    sleeper = subprocess.Popen(["sleep", "30"])
    file = place.drop("OLD", f"pid={sleeper.pid}\n")
    os.utime(file, (time.time() - 60, time.time() - 60))
    place.drop("NEW", f"pid={sleeper.pid}\n")
    place.take()
    sleeper.kill()
    sleeper.wait()

    assert place.row("OLD").caller is None
    assert place.row("NEW").caller is not None
    assert [job.status for job in place.rows()] == ["QUEUED", "QUEUED"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_process_of_somebody_else_is_not_the_caller(place: Place) -> None:
    os.chown(place.drop("N", f"pid={os.getpid()}\n"), 12345, -1)
    place.take()

    assert place.row("N").caller is None


def test_a_pid_of_nobody_is_no_caller(place: Place) -> None:
    place.drop("N", f"pid={2**22 - 1}\n")
    place.take()
    place.end("N", JobStatus.FAILED)

    assert place.row("N").caller is None
    assert place.release.release_all()


@pytest.mark.parametrize("known", ["12345", "x:y:z", "", ":::", "99999999999:1:boot"])
def test_a_caller_that_names_no_process_is_not_signalled_and_keeps_nobody_waiting(place: Place, known: str) -> None:
    for name in ("A", "B", "C"):
        place.drop(name)
    place.take()
    for name in ("A", "B", "C"):
        place.end(name, JobStatus.FAILED)
    Queue.update(caller=known).where(Queue.name == "B").execute()

    assert place.release.release_all()
    assert all(place.light(name).read_text().startswith("FAILED ") for name in ("A", "B", "C"))
    assert all(job.released_at for job in place.rows())
