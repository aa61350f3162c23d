"""Whatever can be said to the code is documented, and nothing is documented that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from orchestrator import errors
from orchestrator.checkstatus import worker
from orchestrator.cli import orchestrator
from orchestrator.engines.base import make_engine
from orchestrator.engines.delphix import client, verdict
from orchestrator.engines.delphix import settings as keys
from orchestrator.engines.delphix.settings import DelphixSettings
from orchestrator.job import _KEYS, CANCEL_SUFFIX, JOB_SUFFIX, LIGHT_SUFFIX
from orchestrator.settings import SettingsTable, load_settings
from orchestrator.simulator.command import simulate_engine
from orchestrator.simulator.faults import COUNTED, STANDING
from orchestrator.spool import caller, claim, directory, watch
from orchestrator.spool.light import Released
from orchestrator.state import EngineState, JobStatus
from tests.docs.documents import DOCUMENTS, ROOT, anchors_of, name_of, prose_of, rows_of, section_of, words_in
from tests.house import CLIENT

PROTOCOL = ROOT / "docs" / "protocol.md"
OPERATORS = ROOT / "docs" / "operators.md"
DELPHIX = ROOT / "docs" / "delphix.md"
STATUSES = "## Exit status of `orchestrator.bash`"


def first_words(section: str) -> set[str]:
    """Give what stands in backticks in the first columns of a section's tables."""
    return {word for row in rows_of(section) for word in words_in(row[0])}


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Give all commands below a group, with the words that call them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


ALL_COMMANDS = dict(commands(orchestrator))


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_is_in_the_table_of_programs_and_has_help(name: str) -> None:
    documented = first_words(section_of(OPERATORS, "## Programs"))

    assert ALL_COMMANDS[name].help
    assert any(re.match(rf"orchestrator {name}( |$)", word) for word in documented), name


def test_every_command_that_a_document_calls_is_there() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    called = re.findall(r"(?:^|`|\$\(|&& )orchestrator ((?:engine )?[a-z][a-z-]+)", text, re.MULTILINE)

    assert len(called) > 50
    assert set(called) - {*ALL_COMMANDS, "engine"} == set()


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_option_of_a_command_is_documented(name: str) -> None:
    text = "".join(map(prose_of, (OPERATORS, DELPHIX, PROTOCOL)))
    longest = {
        max(parameter.opts, key=len) for parameter in ALL_COMMANDS[name].params if isinstance(parameter, click.Option)
    }

    assert {option for option in longest if option not in text} == set()


def test_commands_that_take_json_are_those_that_the_document_names() -> None:
    told = re.search(r"^(.*?) take `--json`", section_of(OPERATORS, "## Programs"), re.MULTILINE)
    taking = {
        name.split()[0]
        for name, command in ALL_COMMANDS.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }

    assert told is not None
    assert set(words_in(told[1])) == taking


def settings_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Give the keys that the code asks for, by the table they stand in, from settings that have a table of each."""
    asked: dict[str, set[str]] = {}
    finish = SettingsTable.finish

    def note(table: SettingsTable) -> None:
        asked.setdefault(table._path, set()).update(table._known)
        finish(table)

    monkeypatch.setattr(SettingsTable, "finish", note)
    (folder / "spool").mkdir()
    file = folder / "orchestrator.toml"
    file.write_text(
        '[spools.s]\npath = "spool"\n[commands.c]\nrun = ["/bin/true"]\n[engines.command]\nkind = "command"\n'
        '[engines.delphix]\nkind = "delphix"\nurl = "http://h/"\nusername = "u"\npassword = "env:P"\n'
    )
    settings = load_settings(file)
    for engine in settings.engines.values():
        make_engine(engine, settings).close()
    return asked


def test_every_settings_key_is_documented_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = settings_keys(tmp_path, monkeypatch)
    section = section_of(OPERATORS, "## Settings")
    parts = re.split(r"^`\[(\w+)\.NAME\]`([^\n]*):$", section.partition("| variable |")[0], flags=re.MULTILINE)
    documented = {"top": first_words(parts[0])}
    for table, of, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        documented[table + of] = first_words(text)

    common = documented["engines, all kinds"]
    assert documented["top"] == asked[""]
    assert documented["spools"] == asked["spools.s"]
    assert documented["commands"] == asked["commands.c"]
    assert common == asked["engines.command"]
    assert common | documented["engines of kind `delphix`"] == asked["engines.delphix"]


def test_documented_defaults_of_settings_are_those_of_the_code(tmp_path: Path) -> None:
    defaults = {
        words_in(row[0])[0]: row[1].strip("`").strip('"')
        for row in rows_of(section_of(OPERATORS, "## Settings"))
        if len(row) == 3 and "`" in row[0]
    }
    file = tmp_path / "orchestrator.toml"
    file.write_text('[spools.s]\npath = "."\n')
    settings = load_settings(file)
    spool = settings.spools["s"]

    assert settings.database.endswith(defaults["database"].removeprefix("sqlite:///"))
    assert (settings.run_dir.name, settings.log_dir.name) == (defaults["run_dir"], defaults["log_dir"])
    assert str(spool.max_waiting) == defaults["max_waiting"]
    assert (str(spool.priority), spool.observer) == (defaults["priority"], defaults["observer"])
    assert str(spool.shell_commands).lower() == defaults["shell_commands"]
    assert f"{DelphixSettings.poll:g}s" == defaults["poll"]
    assert f"{DelphixSettings.lost_start_wait:g}s" == defaults["lost_start_wait"]
    assert f"{DelphixSettings.crashed_start_wait:g}s" == defaults["crashed_start_wait"]
    assert str(DelphixSettings.verify).lower() == defaults["verify"]


def test_every_key_of_a_job_file_is_documented_and_no_other() -> None:
    documented = first_words(section_of(PROTOCOL, "## Keys of a job file"))

    assert documented == {*_KEYS, "param."}


def test_every_option_of_the_client_is_in_the_readme_and_no_other() -> None:
    options = set(re.findall(r"^  (?:    |-\w, )(--\w+)", CLIENT.read_text(), re.MULTILINE))
    documented = set(re.findall(r"`[^`]*?(--\w+)", section_of(ROOT / "README.md", "## A caller")))

    assert options
    assert options <= documented


def test_the_clients_help_and_the_protocol_have_the_same_exit_statuses() -> None:
    helped = re.findall(r"^  (\d[\d, to]*?)  +(.+)$", CLIENT.read_text().split("exit status\n")[1], re.MULTILINE)
    documented = [(status, means.replace("`", "")) for status, means in rows_of(section_of(PROTOCOL, STATUSES))]

    assert [(status.strip(), means) for status, means in helped] == documented


def test_exit_statuses_of_lights_are_the_documented_ones() -> None:
    documented = {words[0]: status for status, words in statuses_in_words()}

    for status in (JobStatus.REJECTED, JobStatus.CANCELLED, JobStatus.TIMEOUT):
        assert str(caller.exit_status_of(f'{status} id=1 reason="exit=3"')) == documented[status]
    assert caller.exit_status_of('FAILED id=1 exit=63 reason=""') == 63
    assert caller.exit_status_of('FAILED id=1 exit=64 reason=""') == 1


def statuses_in_words() -> list[tuple[str, list[str]]]:
    """Give the rows of the client's exit statuses, each meaning as its words without marks."""
    return [(status, re.findall(r"\w+", means)) for status, means in rows_of(section_of(PROTOCOL, STATUSES))]


def test_every_exit_status_of_the_command_line_is_documented() -> None:
    documented = {row[0] for row in rows_of(section_of(OPERATORS, "## Exit statuses"))}
    kinds: list[type[Any]] = [errors.OrchestratorError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    raised = {str(kind.exit_status) for kind in kinds if kind.__module__.startswith("orchestrator")}
    source = (ROOT / "orchestrator" / "cli" / "__init__.py").read_text()
    returned = set(re.findall(r"(?:return |, )(\d+)\)?$", source, re.MULTILINE)) - {"0"}

    assert raised - {"65"} <= documented  # 65 is a job file's, said in its light
    assert returned <= documented


def test_files_of_a_spool_are_documented() -> None:
    documented = first_words(section_of(PROTOCOL, "## Files in a spool directory"))

    assert {f"NAME{suffix}" for suffix in (JOB_SUFFIX, CANCEL_SUFFIX, LIGHT_SUFFIX)} <= documented
    assert {directory.HEARTBEAT, f"{directory.PRIVATE}/", f"{directory.REJECTED}/NAME.job"} <= documented


def test_seconds_in_the_documents_are_those_of_the_code() -> None:
    heartbeat = " ".join(section_of(PROTOCOL, "## Heartbeat").split())
    assert f"normally every {watch.BEAT:.0f} s" in heartbeat
    assert f"Older than {caller.HEARTBEAT_STALE:.0f} s" in heartbeat
    assert f"no sign for {watch.SCHEDULE_SILENT:.0f} s" in heartbeat
    assert f"up to {caller.HEARTBEAT_STALE + watch.SCHEDULE_SILENT:.0f} s" in heartbeat
    assert "ORCHESTRATOR_HEARTBEAT_GRACE:-20" in CLIENT.read_text()
    assert "-mmin -3" in CLIENT.read_text()

    delphix = " ".join(section_of(DELPHIX, "## What is asked, and when").split())
    assert f"{keys.CONNECT_TIMEOUT:.0f} s for a connection, {keys.READ_TIMEOUT:.0f} s without a byte" in delphix
    assert f"{keys.ANSWER_TIMEOUT:.0f} s for a whole answer, {client.MAX_ANSWER // 2**20} MiB" in delphix
    assert f"at most {worker.LAST_RETRY:.0f} s" in delphix
    assert f"every {worker.PROBE:.0f} s where nothing of ours runs there" in delphix

    operators = " ".join(prose_of(OPERATORS).split())
    assert f"has not changed for {claim.SETTLED:.0f} s" in operators


@pytest.mark.parametrize("on_warning", ["fail", "finish"])
def test_the_table_of_what_makes_a_job_green_is_what_the_code_does(on_warning: str) -> None:
    rows = rows_of(section_of(DELPHIX, "## What makes a job green"))
    assert {word for row in rows for word in words_in(row[0])} == verdict.ENDED

    for named, *cells in rows:
        status = (words_in(named) or ["PAUSED_BY_MARTIANS"])[0]
        for cell, events in zip(cells, ([], [{"eventType": verdict.UNMASKED}]), strict=True):
            usual, _, with_finish = cell.replace("*", "").partition("; ")
            said = with_finish.split()[0] if with_finish and on_warning == "finish" else usual
            assert verdict.ended({"status": status}, events, on_warning).status == said, (status, events)


def test_states_and_endings_are_explained_to_operators() -> None:
    explained = first_words(section_of(OPERATORS, "## Reading `status` and `show`"))

    assert set(JobStatus) | set(EngineState) <= explained
    assert {f"released: {released.value}" for released in Released} <= explained


def test_options_and_faults_of_the_simulated_engine_are_documented() -> None:
    section = section_of(DELPHIX, "## The simulated engine")
    options = {max(each.opts, key=len) for each in simulate_engine.params if isinstance(each, click.Option)}

    assert {word.split()[0] for word in first_words(section)} == options
    assert set(COUNTED | STANDING) <= set(words_in(section))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{name_of(document)}: {target}"
        if anchor:
            assert anchor in anchors_of(file), f"{name_of(document)}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_that_are_named_are_there(document: Path) -> None:
    named = re.findall(
        r"`((?:orchestrator|docs|tests|spool|benchmarks)/[\w./-]+\.(?:py|sh|bash|md|toml|conf))`", prose_of(document)
    )
    for name in named:
        assert (ROOT / name).exists(), f"{name_of(document)}: {name}"


def test_settings_that_init_writes_name_a_document_that_is_there() -> None:
    template = (ROOT / "orchestrator" / "cli" / "templates" / "orchestrator.toml").read_text()

    for name in re.findall(r"docs/[\w./-]+\.md", template):
        assert (ROOT / name).exists()


def test_files_that_the_code_refers_to_are_there() -> None:
    for file in sorted((ROOT / "orchestrator").rglob("*")):
        if file.suffix in (".py", ".sh", ".bash"):
            for name in re.findall(r"docs/[\w./-]+\.md", file.read_text(encoding="utf-8")):
                assert (ROOT / name).exists(), f"{file}: {name}"
