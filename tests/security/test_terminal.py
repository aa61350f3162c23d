"""What comes from a job file or an engine reaches no terminal and no log as it is.

Lights and reasons: tests/spool/test_refusals.py, tests/spool/test_release.py; names: tests/spool/test_bad_names.py.
"""

from __future__ import annotations

import os

import pytest

from tests.house import House

EVIL = "x\x1b[2J\x07\x9b31m\u202e\n2026 ERROR forged"


@pytest.fixture
def evil(house: House) -> House:
    """Have a database and a spool full of control characters."""
    house.run("engine", "add", "local", "--cpus", "1")
    house.drop("CRM", "command=true")
    house.run("watch", "--once")
    house.query("UPDATE QUEUE SET job = ?, reason = ?, detail = ?, environment = ?", EVIL, EVIL, EVIL, EVIL)
    house.query("UPDATE EVENTS SET why = ?, move = ?", EVIL, EVIL)
    house.query("UPDATE ENGINES SET cpu = ?", EVIL)
    house.query("INSERT OR REPLACE INTO HEALTH(engine, state, reason, draining) VALUES('local', 'DOWN', ?, 0)", EVIL)
    return house


@pytest.mark.parametrize("command", [("jobs",), ("show", "CRM"), ("status",), ("engine", "list"), ("cancel", "CRM")])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_command_prints_a_control_character(evil: House, command: tuple[str, ...], form: tuple[str, ...]) -> None:
    done = evil.run(*command, *form, status=None)

    said = done.stdout + done.stderr
    assert said
    assert said.isascii()
    assert all(line.isprintable() for line in said.splitlines())
    assert not any(line.startswith("2026 ERROR forged") for line in said.splitlines())


def test_no_log_line_has_one(house: House) -> None:
    for name in (b"\x1b[2J.job", b"a\nERROR forged.job", b"caf\xe9.cancel"):
        os.close(os.open(os.fsencode(house.spool) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    house.drop("BAD", "colour\x1b[31m=red")
    done = house.run("watch", "--once", status=None)

    assert "was refused" in done.stderr
    assert done.stderr.isascii()
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert not any(line.startswith("ERROR forged") for line in done.stderr.splitlines())
