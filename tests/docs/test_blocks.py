"""Every shell block of the documents is run against `orchestrator up` with simulated engines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.simulator.server import Simulator
from tests.docs.documents import DOCUMENTS, ROOT, Block, blocks_of, name_of
from tests.house import CLIENT, House

INSTALLED_AT = "/srv/orchestrator"  # in the documents

ALL = [block for document in DOCUMENTS for block in blocks_of(document)]
SHELL = [block for block in ALL if block.language in ("bash", "sh", "")]
RUN = [block for block in SHELL if block.mark == "run"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Give one installation for all blocks, with two masking engines, the commands of `init`, and `up` running."""
    house = House(tmp_path_factory.mktemp("served"))
    house.add_settings('[engines.local]\nkind = "command"\ncpus = 2')
    house.add_settings('[commands.greet]\nrun = ["/bin/echo", "hello {param.who}"]')
    programs = house.folder / "bin"
    programs.mkdir()
    (programs / "orchestrator").write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    shutil.copy(CLIENT, programs / "orchestrator.bash")
    for program in programs.iterdir():
        program.chmod(0o755)
    house.environment |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ORCHESTRATOR_CONFIG": str(house.settings),
        "ENGINE1_PASSWORD": "admin",
        "SPOOL": str(house.spool),
        "JOB": "MASK_CRM",
    }
    with Simulator(seconds=0.3) as first, Simulator(seconds=0.3, first_id=100) as second:
        house.add_engine("engine1", first.url)
        house.add_engine("engine2", second.url)
        house.start("up")
        try:
            yield house
        finally:
            house.close()


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_runs_as_it_stands_and_prints_what_the_document_shows(block: Block, served: House) -> None:
    where = Path(served.folder, f"line{block.line}")
    where.mkdir(exist_ok=True)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text.replace(INSTALLED_AT, str(served.folder))],
        cwd=where, env=served.environment | {"NAME": f"MASK_CRM@{block.line}.{os.getpid()}"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + served.log.read_text()
    assert "Traceback" not in done.stdout
    rest = done.stdout.replace(str(served.folder), INSTALLED_AT)
    for line in _shown_after(block):
        found = re.search("^" + ".*".join(map(re.escape, line.split("…"))) + "$", rest, re.MULTILINE)
        assert found, f"{block}: does not print {line!r}, but:\n{done.stdout}"
        rest = rest[found.end() :]


def test_every_shell_block_is_run_or_says_why_not() -> None:
    silent = [str(block) for block in SHELL if block.mark != "run" and not (block.mark or "").startswith("not run: ")]

    assert silent == []
    assert len(RUN) > 15


def test_every_settings_block_is_whole_toml_that_loads_or_says_why_not(served: House) -> None:
    folder = served.folder / "settings"
    folder.mkdir()
    for block in ALL:
        if block.language == "toml" and not (block.mark or "").startswith("not run: "):
            file = folder / "orchestrator.toml"
            spool = "" if "[spools." in block.text else '[spools.default]\npath = "."\n'
            file.write_text(block.text + spool)
            (folder / "spool").mkdir(exist_ok=True)
            done = served.run("--config", str(file), "status", status=None)
            assert done.returncode in (0, 1), f"{block}: {done.stderr}"


def test_a_shown_output_follows_a_block_that_is_run() -> None:
    shown = [block for block in ALL if block.mark == "prints"]

    assert shown
    assert [str(block) for block in shown if _before(block).mark != "run"] == []


def test_documents_are_found() -> None:
    assert {"README.md", "docs/protocol.md", "docs/operators.md", "docs/delphix.md"} <= set(map(name_of, DOCUMENTS))


def _shown_after(block: Block) -> list[str]:
    after = ALL[ALL.index(block) + 1 :][:1]
    if after and after[0].document == block.document and after[0].mark == "prints":
        return [line.rstrip() for line in after[0].text.splitlines() if line.strip() not in ("", "…")]
    return []


def _before(block: Block) -> Block:
    return ALL[ALL.index(block) - 1]
