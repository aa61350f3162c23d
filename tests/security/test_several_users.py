"""The programs as an ordinary user, and callers as two others of its group, all at once."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import CLIENT, wait_for
from tests.security.users import ANNA, BERT, as_root

SERVICE = pwd.getpwnam("nobody").pw_uid  # runs the programs; commands need a user that there is
GROUP = 20_100

pytestmark = [as_root, pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")]

# The interpreter may lie below /root: so whoever runs it may read, but nothing else, what is not its own.
READING = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]


def as_user(uid: int, *command: str | Path, reading: bool = False) -> list[str]:
    """Give the command that runs a command as a user of the group."""
    caps = READING if reading else []
    return ["setpriv", "--reuid", str(uid), "--regid", str(GROUP), "--clear-groups", *caps, "--", *map(str, command)]


def run(uid: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user."""
    return subprocess.run(as_user(uid, *command), capture_output=True, text=True, timeout=20, check=False, cwd="/")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Have the programs run as SERVICE, in a spool as `init --shared` makes it."""
    made = Path(tempfile.mkdtemp(prefix="orchestrator-test-"))
    made.chmod(0o755)
    shutil.copy(CLIENT, made / "orchestrator.bash")
    (made / "spool").mkdir()
    (made / "orchestrator.toml").write_text(
        '[spools.default]\npath = "spool"\n[engines.local]\nkind = "command"\ncpus = 2\n'
        '[commands.id]\nrun = ["/bin/sh", "-c", "id -u; umask; ulimit -c"]\n'
    )
    (made / "orchestrator.toml").chmod(0o600)
    for path in (made, made / "spool", made / "orchestrator.toml"):
        os.chown(path, SERVICE, GROUP)
    (made / "spool").chmod(0o3770)
    program: list[str | Path] = [sys.executable, "-m", "orchestrator", "--config", made / "orchestrator.toml", "up"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    probe = subprocess.run(as_user(SERVICE, sys.executable, "-c", "", reading=True), capture_output=True, check=False)
    if probe.returncode != 0:
        shutil.rmtree(made)
        pytest.skip("no other user can run this Python here")
    with (made / "up.log").open("wb") as log:
        up = subprocess.Popen(
            as_user(SERVICE, *program, reading=True), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd="/", env=environment | {"ORCHESTRATOR_LOG": "INFO"},
        )  # fmt: skip
    try:
        wait_for(lambda: (made / "spool" / ".heartbeat").exists() or up.poll() is not None)
        assert up.poll() is None, (made / "up.log").read_text()
        (made / "pid").write_text(str(up.pid))
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            up.kill()
        up.wait()
        shutil.rmtree(made)


def call(folder: Path, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
    return run(uid, "bash", folder / "orchestrator.bash", "-s", folder / "spool", *words)


def test_a_caller_of_the_group_gets_its_green(folder: Path) -> None:
    done = call(folder, ANNA, "id", "command=id")

    assert done.returncode == 0, done.stderr + (folder / "up.log").read_text()


def test_a_caller_reads_why_its_job_was_refused_though_the_programs_keep_their_files_to_themselves(
    folder: Path,
) -> None:
    done = call(folder, ANNA, "id", "command=nothing")
    reasons = run(ANNA, "sh", "-c", f"cat {folder}/spool/rejected/*.reason")

    assert done.returncode == 65
    assert "command: 'nothing' is not configured" in done.stderr
    assert "command: 'nothing' is not configured" in reasons.stdout


@pytest.mark.parametrize("what", ["orchestrator.db", "orchestrator.db-wal", "orchestrator.toml", "log/jobs", "run"])
def test_nobody_else_reads_what_is_ours(folder: Path, what: str) -> None:
    assert call(folder, ANNA, "id", "command=id").returncode == 0

    assert (folder / what).stat().st_mode & 0o077 == 0
    assert run(BERT, "ls" if (folder / what).is_dir() else "cat", folder / what).returncode != 0


def test_no_file_or_directory_of_ours_is_open_to_others_but_what_callers_are_to_read(folder: Path) -> None:
    assert call(folder, ANNA, "id", "command=id").returncode == 0
    ours = [path for path in folder.rglob("*") if path.lstat().st_uid == SERVICE]
    opened = {path.relative_to(folder).parts[:2] for path in ours if stat.S_IMODE(path.lstat().st_mode) & 0o077}

    assert {path for path in opened if not path[-1].endswith(".trafficlight")} <= {
        ("spool",), ("spool", ".heartbeat"), ("spool", "rejected"),
    }  # fmt: skip


def test_one_caller_cannot_remove_the_light_or_the_job_file_of_another(folder: Path) -> None:
    spool = folder / "spool"
    made = run(ANNA, "sh", "-c", f"umask 027; : > {spool}/KEEP.trafficlight; echo job=A > {spool}/.KEEP.tmp")
    assert made.returncode == 0
    for file in ("KEEP.trafficlight", ".KEEP.tmp", ".heartbeat"):
        assert run(BERT, "rm", "-f", spool / file).returncode != 0
        assert run(BERT, "mv", spool / file, spool / "mine").returncode != 0
    assert run(BERT, "sh", "-c", f": > {spool}/KEEP.trafficlight").returncode != 0
    assert run(BERT, "ls", spool / ".orchestrator").returncode != 0


def test_a_command_runs_as_the_programs_user_with_an_ordinary_umask(folder: Path) -> None:
    assert call(folder, BERT, "id", "command=id").returncode == 0
    latest = max((folder / "log" / "jobs").iterdir(), key=lambda path: int(path.name.partition("-")[0]))

    assert latest.read_text().split() == [str(SERVICE), "0022", "0"]


def test_the_memory_of_the_programs_is_not_their_own_users_to_read_nor_a_cores(folder: Path) -> None:
    process = Path("/proc") / (folder / "pid").read_text()

    assert "Max core file size        0 " in (process / "limits").read_text()
    assert (process / "mem").stat().st_uid == 0
    assert run(SERVICE, "cat", process / "environ").returncode != 0
