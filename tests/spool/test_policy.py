"""What the settings allow a job file to ask for: engines, commands, shell lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import JobRefused
from orchestrator.spool.policy import fill_in
from tests.spool.place import Place

ENGINES = """
[engines.e1]
kind = "delphix"
[engines.e2]
kind = "delphix"
[engines.e3]
kind = "delphix"
[engines.local]
kind = "command"
[engines.remote]
kind = "command"
[commands.greet]
run = ["/bin/echo", "--to", "{param.who}", "at {param.where}"]
"""


@pytest.mark.parametrize(("spool", "job", "engines"), [
    (None, "", set()),
    (None, "engine=e1\n", {"e1"}),
    (None, "engine=e2, e1,e2\n", {"e1", "e2"}),
    (["e1", "e2"], "", {"e1", "e2"}),
    (["e1", "e2"], "engine=e2,e3\n", {"e2"}),
    (["e1", "local"], "", {"e1"}),
    (["e1", "local"], "command=greet\nparam.who=you\nparam.where=home\n", {"local"}),
    (["local", "remote"], "command=greet\nparam.who=you\nparam.where=home\nengine=remote,e1\n", {"remote"}),
])  # fmt: skip
def test_a_job_may_run_where_both_it_and_its_spool_allow(
    tmp_path: Path, database: str, spool: list[str] | None, job: str, engines: set[str]
) -> None:
    place = place_of(tmp_path, spool)
    place.drop("CRM", job)
    place.take()

    assert place.row("CRM").status == "QUEUED", place.row("CRM").reason
    assert place.row("CRM").allowed_engines == engines


@pytest.mark.parametrize(("spool", "job", "why"), [
    (["e1"], "engine=e2\n", "engine: spool default does not allow e2"),
    (None, "engine=e9\n", "engine: there is no engine 'e9'; there are: e1, e2, e3, local, remote"),
    ([], "", "engine: spool default does not allow e1, e2, e3, local, remote"),
    (["local"], "", "engine: none that runs masking jobs among local"),
    (["e1"], "command=greet\nparam.who=a\nparam.where=b\n", "engine: none of kind command among e1"),
    (None, "command=rm -rf /\n", "command: 'rm -rf /' is not configured; there are: greet"),
    (None, "command=greet\n", "command: param.who is missing"),
    (None, "command=greet\nparam.who=--help\nparam.where=x\n",
     "param.who: begins with '-', and would be read as an option"),
])  # fmt: skip
def test_what_is_not_allowed_is_refused_with_what_would_be(
    tmp_path: Path, database: str, spool: list[str] | None, job: str, why: str
) -> None:
    place = place_of(tmp_path, spool)
    place.drop("CRM", job)
    place.take()

    assert (place.row("CRM").status, place.row("CRM").reason) == ("REJECTED", why)


def place_of(folder: Path, engines: list[str] | None, more: str = "") -> Place:
    """Give a spool that allows these engines."""
    allowed = "" if engines is None else f"engines = {engines}\n"
    return Place(folder, f'[spools.default]\npath = "spool"\n{allowed}{more}{ENGINES}')


def test_a_configured_command_is_no_shell_line(tmp_path: Path, database: str) -> None:
    place = place_of(tmp_path, None, "shell_commands = true\n")
    place.drop("A", "command=greet\nparam.who=you\nparam.where=home\n")
    place.drop("B", "command=echo $HOME\n")
    place.take()

    assert not place.row("A").shell
    assert place.row("B").shell
    assert place.row("B").command == "echo $HOME"


def test_a_shell_line_is_refused_where_the_spool_does_not_allow_it(tmp_path: Path, database: str) -> None:
    place = place_of(tmp_path, None)
    place.drop("B", "command=echo $HOME\n")
    place.take()

    assert place.row("B").status == "REJECTED"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(("we", "owner", "status"), [(0, 12345, "QUEUED"), (54321, 12345, "REJECTED")])
def test_a_shell_line_of_somebody_else_needs_root(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, we: int, owner: int, status: str
) -> None:
    place = place_of(tmp_path, None, "shell_commands = true\n")
    os.chown(place.drop("B", "command=id\n"), owner, -1)
    (place.path / ".orchestrator").mkdir(mode=0o700)
    os.chown(place.path / ".orchestrator", we, -1)
    monkeypatch.setattr(os, "geteuid", lambda: we)
    place.take()

    assert place.row("B").status == status
    assert place.row("B").owner == owner
    if status == "REJECTED":
        assert place.row("B").reason == "command: a shell line of uid 12345 cannot be run by uid 54321"


@pytest.mark.parametrize("value", ["two words", "; reboot", "$(reboot)", "{param.where}", "../../x", "", "a\tb"])
def test_a_parameter_is_one_argument_whatever_it_holds(value: str) -> None:
    run = ("/bin/echo", "--to", "{param.who}", "at {param.where}")

    assert fill_in(run, {"who": value, "where": "home"}) == ["/bin/echo", "--to", value, "at home"]


def test_a_dash_inside_an_argument_is_no_option() -> None:
    assert fill_in(("/bin/echo", "x{param.a}"), {"a": "-n"}) == ["/bin/echo", "x-n"]
    with pytest.raises(JobRefused):
        fill_in(("/bin/echo", "{param.a}{param.b}"), {"a": "-n", "b": ""})
    with pytest.raises(JobRefused):
        fill_in(("/bin/echo", "{param.a}{param.b}"), {"a": "", "b": "-n"})


@pytest.mark.parametrize("params", [{"a": "", "b": ""}, {"a": "", "b": "crm"}])
def test_an_empty_parameter_that_lays_a_dash_bare_is_refused(params: dict[str, str]) -> None:
    with pytest.raises(JobRefused, match=r"param\.a: is empty, so that the argument begins with '-'"):
        fill_in(("/bin/echo", "{param.a}-{param.b}"), params)
