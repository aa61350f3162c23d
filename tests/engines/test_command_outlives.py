"""A command outlives the daemon that started it, and an attempt runs once or never."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.engines.base import Running
from orchestrator.engines.command import CommandEngine
from orchestrator.errors import EngineDown
from orchestrator.process import identify
from orchestrator.state import JobStatus

from .make import a_job, engine_settings, intended, settings_in
from .test_command_engine import PLACE, Wait, alive, asked_to_end, children_of, cpu_file, end_of, start

NOBODY = 65534


def an_engine(folder: Path) -> CommandEngine:
    made = CommandEngine(engine_settings("command"), settings_in(folder))
    made.describe()
    return made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[CommandEngine]:
    for name in ("run", "log"):
        (tmp_path / name).mkdir()
    made = an_engine(tmp_path)
    yield made
    made.close()


@pytest.fixture
def later(engine: CommandEngine, tmp_path: Path) -> Iterator[CommandEngine]:
    """Give the engine of a daemon that was started later on the same directories."""
    made = an_engine(tmp_path)
    yield made
    made.close()


def test_a_command_is_adopted_and_its_exit_status_still_arrives(
    engine: CommandEngine, later: CommandEngine, tmp_path: Path, eventually: Wait
) -> None:
    job = start(engine, command=f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 7")
    engine.close()
    eventually(lambda: later.check([job])[1] == Running() and len(list(later.wait_fds())) == 1)
    (tmp_path / "go").touch()
    assert end_of(later, job).exit_status == 7


def test_the_exit_status_of_a_command_that_ended_while_no_daemon_ran_still_arrives(
    engine: CommandEngine, later: CommandEngine
) -> None:
    job = start(engine, command="exit 9")
    end_of(engine, job)
    engine.close()
    assert end_of(later, job).exit_status == 9


def test_a_daemon_that_dies_before_it_heard_of_an_end_takes_no_other_command_with_it(
    engine: CommandEngine, later: CommandEngine, tmp_path: Path, eventually: Wait
) -> None:
    quick = start(engine, command="exit 3")
    slow = start(engine, id=2, cpu="CPU2", command=f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 4")
    eventually(lambda: "exit 3" in cpu_file(tmp_path).read_text())
    engine.close()
    (tmp_path / "go").touch()
    assert end_of(later, slow).exit_status == 4
    assert end_of(later, quick).exit_status == 3


def test_commands_that_were_sent_before_the_daemon_died_still_run(
    engine: CommandEngine, later: CommandEngine, tmp_path: Path, eventually: Wait
) -> None:
    """Their files are locked all the while, so that nobody starts them again."""
    runner = runner_of(engine, tmp_path, eventually)
    os.kill(runner, signal.SIGSTOP)
    job = start(engine, command="exit 3")
    engine.close()
    assert later.find_start(intended("", **PLACE), []) == "1.1"
    assert later.check([job])[1] == Running()
    os.kill(runner, signal.SIGCONT)
    assert end_of(later, job).exit_status == 3


def test_a_command_that_was_sent_to_a_runner_that_died_before_it_took_it_is_surely_not_started(
    engine: CommandEngine, later: CommandEngine, tmp_path: Path, eventually: Wait
) -> None:
    runner = runner_of(engine, tmp_path, eventually)
    os.kill(runner, signal.SIGSTOP)
    start(engine, command="exit 3")
    os.kill(runner, signal.SIGKILL)
    eventually(lambda: later.find_start(intended("", **PLACE), []) is None)


def runner_of(engine: CommandEngine, tmp_path: Path, eventually: Wait) -> int:
    """Run a command on CPU2; the process that ran it."""
    job = start(engine, id=9, cpu="CPU2", command=f"echo $PPID >> {tmp_path}/pids")
    (runner,) = children_of(tmp_path, 1, eventually)
    assert end_of(engine, job).status is JobStatus.FINISHED
    engine.forget(job)
    return runner


def test_an_adopted_command_can_be_cancelled(
    engine: CommandEngine, later: CommandEngine, tmp_path: Path, eventually: Wait
) -> None:
    job = start(engine, command=f"sleep 60 & echo $! >> {tmp_path}/pids; wait")
    pids = children_of(tmp_path, 1, eventually)
    engine.close()
    job = asked_to_end(job)
    later.cancel(job)
    assert end_of(later, job).status is JobStatus.CANCELLED
    eventually(lambda: not alive(pids[0]))


@pytest.mark.parametrize("who", ["the daemon that started it", "a later daemon"])
def test_a_command_whose_supervisor_was_killed_fails_and_leaves_no_process(
    engine: CommandEngine, later: CommandEngine, tmp_path: Path, eventually: Wait, who: str
) -> None:
    line = f"sleep 60 & echo $! >> {tmp_path}/pids; echo $$ >> {tmp_path}/pids; echo $PPID >> {tmp_path}/pids; wait"
    job = start(engine, command=line)
    *pids, supervisor = children_of(tmp_path, 3, eventually)
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not alive(supervisor))
    if who == "a later daemon":
        engine.close()
    ended = end_of(later if who == "a later daemon" else engine, job)
    assert (ended.status, ended.exit_status) == (JobStatus.FAILED, None)
    assert "killed together with the process that watches it" in str(ended.reason)
    eventually(lambda: not any(alive(pid) for pid in pids))


def test_an_attempt_that_was_never_begun_is_surely_not_started(later: CommandEngine, tmp_path: Path) -> None:
    assert later.find_start(intended("", **PLACE), []) is None
    cpu_file(tmp_path).write_text("attempt 7.1\nran 5\nexit 0\n")
    assert later.find_start(intended("", **PLACE), []) is None


def test_an_attempt_whose_process_was_killed_before_the_command_ran_is_surely_not_started(
    later: CommandEngine, tmp_path: Path
) -> None:
    cpu_file(tmp_path).write_text("attempt 1.1\nprocess 5:6:another-boot\n")
    assert later.find_start(intended("", **PLACE), []) is None


def test_an_attempt_that_is_just_being_started_is_found(later: CommandEngine, tmp_path: Path) -> None:
    """The daemon has died, and its child lives but has not got round to telling."""
    cpu_file(tmp_path).write_text("attempt 1.1\n")
    with cpu_file(tmp_path).open() as child:
        fcntl.flock(child, fcntl.LOCK_EX)
        assert later.find_start(intended("", **PLACE), []) == "1.1"


def test_a_command_whose_runner_died_before_it_told_the_process_fails_and_leaves_no_process(
    engine: CommandEngine, later: CommandEngine, tmp_path: Path, eventually: Wait
) -> None:
    job = start(engine, command=f"sleep 60 & echo $! >> {tmp_path}/pids; echo $PPID >> {tmp_path}/pids; wait")
    pids = children_of(tmp_path, 2, eventually)
    os.kill(pids[1], signal.SIGKILL)
    engine.close()
    lines = cpu_file(tmp_path).read_text().splitlines()
    cpu_file(tmp_path).write_text("".join(f"{line}\n" for line in lines if not line.startswith("process")))
    eventually(lambda: not isinstance(later.check([job])[1], Running))
    assert end_of(later, job).status is JobStatus.FAILED
    eventually(lambda: not alive(pids[0]))


def test_an_attempt_that_ran_is_found(engine: CommandEngine, later: CommandEngine) -> None:
    job = start(engine, command="exit 4")
    end_of(engine, job)
    assert later.find_start(intended("", command="exit 4", **PLACE), []) == "1.1"
    assert end_of(later, job).exit_status == 4


def test_where_the_file_cannot_be_read_nothing_is_concluded(later: CommandEngine, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(EngineDown, match="Not a directory"):
        later.find_start(intended("", **PLACE), [])


@pytest.mark.parametrize("text", ["", "\n", "attempt 1.1", "attempt 1.1\nprocess x\n", "attempt 1.1\nran x\n", "\xff"])
def test_a_file_that_makes_no_sense_is_of_no_process(later: CommandEngine, tmp_path: Path, text: str) -> None:
    cpu_file(tmp_path).write_text(text, encoding="latin-1")
    job = a_job(**PLACE, status="RUNNING", execution="1.1")
    later.cancel(asked_to_end(job))
    assert end_of(later, job).status is JobStatus.FAILED


def test_a_reused_pid_is_of_no_process_and_nobody_is_hurt(later: CommandEngine, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        found = identify(stranger.pid)
        assert found is not None
        cpu_file(tmp_path).write_text(f"attempt 1.1\nprocess {replace(found, start=found.start - 1)}\n")
        job = a_job(**PLACE, status="RUNNING", execution="1.1")
        later.cancel(asked_to_end(job, "another-boot 0.0"))
        assert end_of(later, job).status is JobStatus.FAILED
        assert stranger.poll() is None
        stranger.kill()


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder that other users can pass through, with directories as the settings make them."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-test-"))
    folder.chmod(0o711)
    (folder / "run").mkdir(mode=0o700)
    (folder / "log").mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs commands as somebody else")
def test_a_daemon_of_root_runs_a_command_as_the_owner_of_its_job_file(shared: Path) -> None:
    engine = an_engine(shared)
    job = start(engine, command="id -u; id -G; cat", owner=NOBODY)
    assert end_of(engine, job).status is JobStatus.FINISHED
    assert set((shared / "log/jobs/1-MASK_CRM.log").read_text().split()) == {str(NOBODY)}
    assert (cpu_file(shared).stat().st_uid, cpu_file(shared).stat().st_mode & 0o777) == (0, 0o600)
    engine.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs commands as somebody else")
def test_a_user_cannot_pass_another_users_process_off_as_its_own_command(shared: Path) -> None:
    """Else a daemon of root would kill it at the next cancel."""
    engine = an_engine(shared)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as victim:
        found = identify(victim.pid)
        assert found is not None
        cpu_file(shared).write_text(f"attempt 1.1\nprocess {found}\n")
        job = a_job(**PLACE, status="RUNNING", execution="1.1", owner=NOBODY)
        engine.cancel(asked_to_end(job, "another-boot 0.0"))
        assert end_of(engine, job).status is JobStatus.FAILED
        assert victim.poll() is None
        victim.kill()
    engine.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs commands as somebody else")
def test_a_job_of_a_user_that_is_not_there_is_refused(shared: Path) -> None:
    from orchestrator.errors import StartRefused

    engine = an_engine(shared)
    with pytest.raises(StartRefused, match="cannot be started"):
        start(engine, command="true", owner=54321)
    engine.close()
