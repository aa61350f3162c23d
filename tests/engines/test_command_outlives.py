"""A command outlives the daemon that started it, and an attempt runs once or never."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.engines import command as command_module
from orchestrator.engines.base import Running, StartLost
from orchestrator.engines.command import CommandEngine
from orchestrator.process import boot_id, identify
from orchestrator.state import JobStatus

from .make import a_job, engine_settings, intended, settings_in
from .test_command_engine import Wait, alive, asked_to_end, children_of, claim_in, end_of, start

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
    eventually(claim_in(tmp_path).exists)
    engine.close()
    assert later.check([job])[1] == Running()
    assert len(list(later.wait_fds())) == 1
    (tmp_path / "go").touch()
    assert end_of(later, job).exit_status == 7


def test_the_exit_status_of_a_command_that_ended_while_no_daemon_ran_still_arrives(
    engine: CommandEngine, later: CommandEngine
) -> None:
    job = start(engine, command="exit 9")
    end_of(engine, job)
    engine.close()
    assert end_of(later, job).exit_status == 9


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
    assert "killed together with the shell" in str(ended.reason)
    eventually(lambda: not any(alive(pid) for pid in pids))


def test_an_attempt_that_never_ran_is_claimed_and_never_will(
    engine: CommandEngine, later: CommandEngine, tmp_path: Path
) -> None:
    """The daemon died between its intent and the start: then the start must not come later."""
    job = intended("", command=f"touch {tmp_path}/ran", shell=True)
    assert later.find_start(job, []) is None
    run = ["/bin/sh", command_module.RUN, str(claim_in(tmp_path)), "boot", "/bin/touch", f"{tmp_path}/ran"]
    assert subprocess.run(run, input=b"1\n", check=False).returncode == 0
    assert not (tmp_path / "ran").exists()
    later.forget(job)
    later.describe()
    assert subprocess.run(run, input=b"1\n", check=False).returncode == 0
    assert not (tmp_path / "ran").exists()


def test_a_start_that_was_cut_off_before_it_was_told_of_never_runs(later: CommandEngine, tmp_path: Path) -> None:
    run = ["/bin/sh", command_module.RUN, str(claim_in(tmp_path)), "boot", "/bin/touch", f"{tmp_path}/ran"]
    assert subprocess.run(run, input=b"", check=False).returncode == 0
    assert not (tmp_path / "ran").exists()


def test_what_a_daemon_claimed_before_this_boot_is_removed_and_nothing_else(
    engine: CommandEngine, tmp_path: Path
) -> None:
    folder = claim_in(tmp_path).parent
    claims = {"1.1": "never another-boot\n", "2.1": f"never {boot_id()}\n", "3.1": "", "4.1": "5:6:another-boot\n0\n"}
    for name, text in claims.items():
        (folder / name).write_text(text)
    engine.describe()

    assert sorted(path.name for path in folder.iterdir()) == ["2.1", "3.1", "4.1"]


def test_an_attempt_that_ran_is_found(engine: CommandEngine, later: CommandEngine) -> None:
    job = start(engine, command="exit 4")
    end_of(engine, job)
    assert later.find_start(intended("", command="exit 4"), []) == "1.1"
    assert end_of(later, job).exit_status == 4


def test_of_a_start_and_a_claim_at_the_same_time_one_wins(engine: CommandEngine, tmp_path: Path) -> None:
    for attempt in range(1, 21):
        job = start(engine, command=f"echo {attempt} >> {tmp_path}/ran", attempts=attempt)
        time.sleep(attempt % 4 * 0.0005)
        found = engine.find_start(intended("", attempts=attempt), [])
        end_of(engine, job)
        ran = (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []
        assert (str(attempt) in ran) == (found is not None)


def test_where_the_claim_cannot_be_made_nobody_can_tell(later: CommandEngine, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(StartLost, match=r"1\.1: Not a directory"):
        later.find_start(intended(""), [])


@pytest.mark.parametrize("claim", ["", "\n", "\n\n", "x\ny", "12:x:boot\n", "1\n2\n3\n", "\xff"])
def test_a_claim_that_makes_no_sense_is_of_no_process(later: CommandEngine, tmp_path: Path, claim: str) -> None:
    claim_in(tmp_path).write_text(claim, encoding="latin-1")
    job = a_job(status="RUNNING", execution="1.1")
    later.cancel(asked_to_end(job))
    assert end_of(later, job).status is JobStatus.FAILED


def test_a_claim_of_a_reused_pid_is_of_no_process_and_nobody_is_hurt(later: CommandEngine, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        found = identify(stranger.pid)
        assert found is not None
        claim_in(tmp_path).write_text(f"{replace(found, start=found.start - 1)}\n")
        job = a_job(status="RUNNING", execution="1.1")
        later.cancel(asked_to_end(job, "another-boot 0.0"))
        assert end_of(later, job).status is JobStatus.FAILED
        assert stranger.poll() is None
        stranger.kill()


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder that other users can pass through, with directories as the settings make them."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-test-"))
    folder.chmod(0o711)
    (folder / "run").mkdir()
    (folder / "run").chmod(0o711)
    (folder / "log").mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs commands as somebody else")
def test_a_daemon_of_root_runs_a_command_as_the_owner_of_its_job_file(shared: Path) -> None:
    engine = an_engine(shared)
    job = start(engine, command="id -u; id -G; cat", owner=NOBODY)
    assert end_of(engine, job).status is JobStatus.FINISHED
    assert set((shared / "log/jobs/1-MASK_CRM.log").read_text().split()) == {str(NOBODY)}
    engine.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs commands as somebody else")
def test_a_user_cannot_pass_another_users_process_off_as_its_own_command(shared: Path) -> None:
    """Else a daemon of root would kill it at the next cancel."""
    engine = an_engine(shared)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as victim:
        found = identify(victim.pid)
        assert found is not None
        claim = claim_in(shared, NOBODY)
        claim.write_text(f"{found}\n")
        for path in (claim.parent, claim):
            os.chown(path, NOBODY, NOBODY)
        job = a_job(status="RUNNING", execution="1.1", owner=NOBODY)
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
