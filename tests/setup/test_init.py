"""`orchestrator init DIR`."""

from __future__ import annotations

import grp
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.settings import load_settings

ORCHESTRATOR = Path(sys.executable).with_name("orchestrator")
ROOT = Path(__file__).parents[2]


def init(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ORCHESTRATOR, "init", str(directory), *options], capture_output=True, text=True, check=False)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "new"
    assert init(directory).returncode == 0
    return directory


@pytest.mark.parametrize(("name", "mode"), [
    ("spool", 0o2770), ("run", 0o700), ("log", 0o700), ("orchestrator.toml", 0o600), ("supervisor.conf", 0o600),
])  # fmt: skip
def test_callers_reach_the_spool_and_nothing_else(made: Path, name: str, mode: int) -> None:
    assert stat.S_IMODE((made / name).stat().st_mode) == mode


def test_the_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert init(tmp_path / "new").returncode == 0
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "new" / "spool").stat().st_mode) == 0o2770


@pytest.mark.parametrize("name", ["new", "deep/er/new"])
def test_callers_reach_the_spool_through_directories_that_it_made_whatever_the_umask(tmp_path: Path, name: str) -> None:
    before = os.umask(0o077)
    try:
        assert init(tmp_path / name).returncode == 0
    finally:
        os.umask(before)

    made = [tmp_path / name, *(tmp_path / name).parents]
    assert {stat.S_IMODE(each.stat().st_mode) for each in made[: made.index(tmp_path)]} == {0o755}


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o700)

    assert init(tmp_path / "new").returncode == 0
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_an_empty_directory_name_is_wrong_usage(tmp_path: Path) -> None:
    done = subprocess.run([ORCHESTRATOR, "init", ""], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 64
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["spool", "run", "log"])
def test_a_file_in_the_place_of_a_directory_is_named_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()

    done = init(tmp_path)

    assert done.returncode == 64
    assert f"{tmp_path / name} is no directory" in done.stderr
    assert os.listdir(tmp_path) == [name]


def test_a_directory_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = init(tmp_path / "file" / "new")

    assert done.returncode == 74
    assert f"{tmp_path}/file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_in_a_directory_that_is_gone_a_relative_one_is_told_in_one_line(tmp_path: Path) -> None:
    gone = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" init x'
    done = subprocess.run(
        ["bash", "-c", gone, str(ORCHESTRATOR)], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 64
    assert done.stderr == "orchestrator: the current directory is gone: give an absolute path\n"


def test_the_command_that_it_tells_is_what_a_shell_can_run(tmp_path: Path) -> None:
    directory = tmp_path / "it's $HOME; touch ran"
    printed = init(directory).stdout.splitlines()[-1]

    command = printed.strip().removeprefix("orchestrator ").removesuffix(" up")
    done = subprocess.run(
        ["bash", "-c", f"{ORCHESTRATOR} {command} jobs"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_directory_whose_name_is_no_utf_8_serves_as_well(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path) + b"/\xff"
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}  # as in most locales
    done = subprocess.run([ORCHESTRATOR, "init", directory], capture_output=True, check=False, env=strict)

    assert done.returncode == 0, done.stderr
    assert os.path.isdir(directory + b"/spool")


def test_the_settings_that_it_writes_can_be_read(made: Path) -> None:
    settings = load_settings(made / "orchestrator.toml")

    assert settings.spools["default"].path == made / "spool"
    assert list(settings.commands) == ["greet"]


@pytest.mark.parametrize("name", ["orchestrator.toml", "supervisor.conf"])
def test_a_file_that_says_something_else_is_not_overwritten_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine\n")

    done = init(tmp_path)

    assert done.returncode == 64
    assert f"{tmp_path / name} is there already" in done.stderr
    assert (tmp_path / name).read_text() == "mine\n"
    assert os.listdir(tmp_path) == [name]


def test_a_second_init_makes_what_is_missing_and_leaves_the_rest(made: Path) -> None:
    (made / "log").rmdir()
    (made / "spool").chmod(0o2775)
    before = (made / "orchestrator.toml").stat()

    done = init(made, "--json")

    assert json.loads(done.stdout) == {"directory": str(made), "made": ["log/"]}
    assert stat.S_IMODE((made / "spool").stat().st_mode) == 0o2775
    assert (made / "orchestrator.toml").stat().st_mtime_ns == before.st_mtime_ns


def test_a_directory_with_blanks_in_its_path_serves_as_well(tmp_path: Path) -> None:
    directory = tmp_path / "with two blanks"

    done = init(directory)
    command = [str(ORCHESTRATOR), "--config", str(directory / "orchestrator.toml"), "jobs"]
    jobs = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert jobs.returncode == 0, jobs.stderr


def test_a_relative_directory_is_meant_from_where_one_stands(tmp_path: Path) -> None:
    done = subprocess.run([ORCHESTRATOR, "init", "."], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert str(tmp_path / "orchestrator.toml") in done.stdout


def test_the_supervisor_conf_that_it_writes_is_the_one_of_the_checkout_but_for_the_program(made: Path) -> None:
    checkout = (ROOT / "supervisor.conf").read_text()
    template = (ROOT / "orchestrator" / "cli" / "templates" / "supervisor.conf").read_text()

    assert template == checkout
    assert (made / "supervisor.conf").read_text() == checkout.replace(
        "%(here)s/.venv/bin/orchestrator", str(ORCHESTRATOR)
    )


def test_in_a_checkout_its_supervisor_conf_stays_and_is_no_hindrance(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    program = checkout / ".venv" / "bin" / "orchestrator"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {ORCHESTRATOR} "$@"\n')
    conf = checkout / "supervisor.conf"
    conf.write_bytes((ROOT / "supervisor.conf").read_bytes())
    # The program knows itself by its Python: a link is one with its own folder, as in a .venv.
    (program.parent / "python").symlink_to(sys.executable)
    run = "import sys; sys.executable = sys.argv[1]; from orchestrator.cli import run; sys.exit(run(sys.argv[2:]))"

    done = subprocess.run(
        [sys.executable, "-c", run, str(program.parent / "python"), "init", str(checkout), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == ["orchestrator.toml", "spool/", "run/", "log/"]
    assert conf.read_bytes() == (ROOT / "supervisor.conf").read_bytes()


GROUP = grp.getgrgid(os.getegid()).gr_name
SHARED_MODES = {
    "spool": 0o3770, "spool/rejected": 0o2750, "spool/.orchestrator": 0o700, "run": 0o700, "log": 0o700,
    "orchestrator.toml": 0o600, "supervisor.conf": 0o600,
}  # fmt: skip


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_shared_spool_is_sticky_and_the_groups_and_each_mode_is_explained(tmp_path: Path, umask: int) -> None:
    group = "games" if os.geteuid() == 0 else GROUP
    before = os.umask(umask)
    try:
        done = init(tmp_path / "new", "--shared", group)
    finally:
        os.umask(before)

    assert done.returncode == 0, done.stderr
    for name, mode in SHARED_MODES.items():
        found = (tmp_path / "new" / name).stat()
        assert stat.S_IMODE(found.st_mode) == mode, name
        assert found.st_uid == os.geteuid()
        assert f"  {mode:04o}  {name}: " in done.stdout
    for name in ("spool", "spool/rejected"):
        assert grp.getgrgid((tmp_path / "new" / name).stat().st_gid).gr_name == group


def test_a_second_shared_init_changes_nothing(tmp_path: Path) -> None:
    assert init(tmp_path / "new", "--shared", GROUP).returncode == 0

    done = init(tmp_path / "new", "--shared", GROUP, "--json")

    assert json.loads(done.stdout) == {"directory": str(tmp_path / "new"), "made": [], "group": GROUP}


def test_an_unknown_group_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    done = init(tmp_path / "new", "--shared", "nobodys-group")

    assert done.returncode == 64
    assert "--shared: there is no group 'nobodys-group'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_a_spool_that_is_there_is_not_changed_but_told_how_to_share_it(made: Path) -> None:
    done = init(made, "--shared", GROUP)

    assert done.returncode == 64
    assert f"chgrp {GROUP} {made}/spool && chmod 3770 {made}/spool" in done.stderr
    assert stat.S_IMODE((made / "spool").stat().st_mode) == 0o2770


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without the group")
def test_who_is_not_in_the_group_is_told_what_to_do(tmp_path: Path) -> None:
    program = "import os, sys; from orchestrator.cli import init, run; import grp, pwd, json; os.setgroups([]);"
    become = "os.setresgid(20000, 20000, 20000); os.setresuid(20000, 20000, 20000); sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program + become, "init", "/nowhere/new", "--shared", "games"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 64
    assert "--shared: uid 20000 is not in group games" in done.stderr
    assert len(done.stderr.splitlines()) == 1
