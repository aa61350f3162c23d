"""The Makefile, .ci/run, constraints.txt, and what must not stand in any file."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tracked() -> list[Path]:
    """The files of the checkout; where there is no git, all that no tool has made."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    made = re.compile(r"^(\.venv|\..*_cache|build|dist|demo-run|.*\.egg-info|__pycache__)$")
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(made.match(part) for part in path.relative_to(ROOT).parts)
    ]


def plain(requirement: str) -> str:
    """The name of a requirement, as one spelling."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement)[0]).lower()


def test_make_without_a_target_lists_every_target() -> None:
    listed = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True)

    targets = re.findall(r"^make (\w+) +\S", listed.stdout, re.MULTILINE)
    assert sorted(targets) == sorted(["help", "demo", "up", "test", "check", "faults", "bench", "clean"])
    assert len(listed.stdout.splitlines()) == len(targets)


def test_the_ci_runs_make_test_from_wherever_it_is_called(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "$PWD: make $*"\n')
    make.chmod(0o755)

    done = subprocess.run(
        [ROOT / ".ci" / "run"], cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
    )

    assert done.stdout == f"{ROOT}: make test\n"


def test_the_check_reads_every_shell_file() -> None:
    listed = subprocess.run([ROOT / ".ci" / "shell-files"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )

    assert {
        "./.ci/run", "./orchestrator/orchestrator.bash",
        "./orchestrator/demo/six_lines.bash",
    } <= set(listed)  # fmt: skip


def test_a_package_that_cannot_be_installed_is_one_line_and_no_failure(tmp_path: Path) -> None:
    for name, text in {"apt-get": "exit 100", "sudo": "exit 1", "id": "echo 0"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    done = subprocess.run(
        [ROOT / ".ci" / "debian-packages", "shell=sh", "no-such-package=no-such-command"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0
    assert done.stderr == "apt-get could not install: no-such-package; going on without\n"


def test_where_nothing_is_missing_nothing_is_said() -> None:
    done = subprocess.run([ROOT / ".ci" / "debian-packages", "shell=sh"], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("", "")


def test_constraints_name_every_dependency_with_one_exact_version_and_nothing_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]

    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    names = [plain(line) for line in lines]
    assert len(names) == len(set(names))
    assert {plain(each) for each in wanted} <= set(names)


def test_no_file_names_the_host_of_a_package_registry() -> None:
    hosts = ["pypi" + ".org", "pythonhosted" + ".org", "index" + "-url", "npmjs" + ".org", "artifact" + "ory"]

    found = [
        (path.relative_to(ROOT), host)
        for path in tracked()
        for host in hosts
        if host in path.read_text(encoding="utf-8", errors="replace").lower()
    ]

    assert found == []


def test_the_spool_of_the_checkout_holds_its_readme_only_and_points_to_the_contract() -> None:
    readme = ROOT / "spool" / "README.md"

    assert [path for path in tracked() if path.parent == ROOT / "spool"] == [readme]
    assert "docs/protocol.md" in readme.read_text()


def test_the_shell_client_is_installed_beside_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert project["tool"]["setuptools"]["script-files"] == ["orchestrator/orchestrator.bash"]
    assert (ROOT / "orchestrator" / "orchestrator.bash").read_text().startswith("#!/usr/bin/env bash\n")
