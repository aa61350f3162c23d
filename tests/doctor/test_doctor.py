"""`orchestrator doctor` as a whole: what it prints, its exit status, and that it changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.doctor import examine as whole
from orchestrator.doctor.finding import guarded, lasting, listed
from tests.docs.documents import ROOT
from tests.doctor.patient import Patient, is_root
from tests.house import House


def test_where_all_is_well_each_line_is_ok_and_the_status_is_0(patient: Patient) -> None:
    status, out = patient.command("doctor", "--strict")
    lines = out.splitlines()

    assert status == 0, out
    assert {line.split(":")[0] for line in lines[:-1]} == {
        "OK    settings", "OK    commands", "OK    client", "OK    disk", "OK    inotify", "OK    schedule",
        "OK    spool default", "OK    database", "OK    engine local", "OK    jobs",
    }  # fmt: skip
    assert lines[-1] == f"{len(lines) - 1} OK, 0 WARN, 0 FAIL"


def test_nothing_is_changed_where_nothing_runs(patient: Patient) -> None:
    patient.take("ONE")
    before = patient.tree()
    assert "orchestrator.db-wal" not in before

    patient.doctor()
    patient.recover()
    assert patient.tree() == before


def test_nothing_is_made_where_nothing_is(house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    patient = Patient.__new__(Patient)
    patient.house, patient._capsys = house, capsys

    findings = patient.doctor()
    patient.recover()
    assert {path.name for path in tmp_path.iterdir()} == {"spool", "orchestrator.toml"}
    assert list(house.spool.iterdir()) == []
    assert ("WARN", "database") in [(each["level"], each["subject"]) for each in findings]
    assert len([each for each in findings if each["subject"] == "settings" and "is missing" in each["found"]]) == 2


def test_beside_a_running_program_all_is_well_and_nothing_comes_of_the_file_that_is_dropped(house: House) -> None:
    house.spool.chmod(0o2770)
    house.start("up")
    house.wait_for_engine("local", "UP")
    told = house.run("doctor", status=None).stdout

    assert "seen after" in told
    assert [line for line in told.splitlines()[:-1] if not line.startswith(("OK ", "WARN  disk", "WARN  client"))] == []
    assert house.query("SELECT * FROM QUEUE") == []
    assert [path.name for path in house.spool.iterdir() if path.name.startswith(".doctor")] == []


def test_what_a_killed_program_left_is_looked_into_and_kept(patient: Patient) -> None:
    code = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    code += "c.execute(\"UPDATE ENGINES SET cpu = 'CPU7' WHERE cpu = 'CPU1'\"); c.commit(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(patient.house.database)], check=True)
    before = patient.tree()
    assert "orchestrator.db-wal" in before

    patient.is_well()
    assert patient.tree() == before


def test_json_has_the_worst_level_and_all_findings(patient: Patient) -> None:
    status, out = patient.command("doctor", "--json")
    printed = json.loads(out)

    assert (status, printed["status"]) == (0, "OK")
    assert set(printed["findings"][0]) == {"subject", "level", "found", "advice"}


def test_a_warning_gives_0_and_with_strict_1(patient: Patient) -> None:
    (patient.house.folder / "log").rmdir()

    assert patient.command("doctor")[0] == 0
    assert patient.command("doctor", "--strict")[0] == 1
    assert json.loads(patient.command("doctor", "--json")[1])["status"] == "WARN"


def test_a_failure_gives_1_and_its_line_says_what_to_do(patient: Patient) -> None:
    patient.house.settings.chmod(0o666)
    status, out = patient.command("doctor")

    assert status == 1
    assert f" -> chmod go-w {patient.house.settings}\n" in out
    assert out.splitlines()[-1].endswith(", 0 WARN, 1 FAIL")


def test_settings_that_do_not_load_are_the_one_line_with_the_key(patient: Patient) -> None:
    patient.house.add_settings("[spools.night]\npath = 7")
    [finding] = patient.doctor()

    assert (finding["level"], finding["subject"]) == ("FAIL", "settings")
    assert "spools.night.path: must be a string" in finding["found"]


def test_settings_that_are_not_there_are_one_line_too(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.house.settings.unlink()
    [finding] = patient.doctor()
    assert "cannot be read: No such file" in finding["found"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCHESTRATOR_CONFIG", raising=False)
    monkeypatch.setattr("orchestrator.settings.CONFIG_PLACES", ())
    from orchestrator.cli import run

    patient._capsys.readouterr()
    assert run(["doctor"]) == 1
    assert patient._capsys.readouterr().out.startswith("FAIL  settings: no settings: ")


def test_what_comes_from_outside_is_one_line_of_ascii(patient: Patient) -> None:
    patient.change("ENGINES", "status = 'a' || char(10) || char(27) || 'é'", "cpu = 'CPU1'")
    _, out = patient.command("doctor")

    assert out.isascii()
    assert "\x1b" not in out
    assert all(line.startswith(("OK ", "WARN ", "FAIL ")) for line in out.splitlines()[:-1])


def test_a_fault_in_one_check_costs_its_own_line_only(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(whole, "check_disk", broken)
    patient.found("WARN", "disk", "could not be checked", "by zero")
    assert len(patient.doctor()) > 9


def test_a_spool_that_hangs_is_told_and_holds_up_nothing(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    end = threading.Event()
    monkeypatch.setattr(whole, "_look_at", lambda *_: end.wait(20))
    findings = patient.doctor("--timeout", "0.2")
    end.set()

    assert [each["found"] for each in findings if each["subject"] == "spool default"] == [
        f"{patient.house.spool}: no answer within 0.2 s"
    ]
    assert findings[-1]["subject"] == "jobs"


def test_what_is_not_ours_to_read_is_a_warning(patient: Patient) -> None:
    def closed() -> list[object]:
        raise PermissionError(13, "Permission denied", "/closed")

    [finding] = guarded("disk", closed)  # type: ignore[arg-type]
    assert (finding.level, finding.found) == ("WARN", "/closed: Permission denied")


@pytest.mark.skipif(not is_root(), reason="only root can be somebody else")
def test_another_user_is_told_what_could_not_be_looked_at(patient: Patient) -> None:
    reach = patient.house.folder
    opened = []
    while reach != reach.parent:  # pytest's folders are closed to others
        mode = reach.stat().st_mode
        if not mode & 0o005:
            opened.append((reach, mode))
            reach.chmod(mode | 0o055)
        reach = reach.parent
    patient.house.database.chmod(0o600)
    # Python itself may be closed to others: it is loaded before.
    become = "import os, sys; from orchestrator.cli import doctor, run; import orchestrator.doctor.examine; "
    become += "import orchestrator.spool.policy, encodings.idna; "
    become += "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(run(sys.argv[1:]))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", become, "--config", str(patient.house.settings), "doctor"],
            capture_output=True, text=True, check=False, cwd="/", env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        for path, mode in opened:
            path.chmod(mode)

    assert (done.returncode in (0, 1), done.stderr) == (True, "")
    assert "orchestrator.db: nobody may not read it -> run doctor as the user who runs the programs" in done.stdout
    assert "whether events arrive was not tried: nobody may not write in" in done.stdout


def test_a_start_of_the_command_line_does_not_load_the_doctor(patient: Patient) -> None:
    look = "import sys; from orchestrator.cli import run; run(sys.argv[1:]); "
    look += "print(sorted({each for each in sys.modules if each.startswith(('orchestrator.doctor', 'requests'))}))"
    for command in ("--help", "status"):
        done = subprocess.run(
            [sys.executable, "-c", look, "--config", str(patient.house.settings), command],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "[]"


def test_times_and_lists_are_told_in_short() -> None:
    assert [lasting(each) for each in (0.4, 119, 150, 7200, 864000)] == ["0 s", "119 s", "2 min", "2 h", "10 d"]
    assert listed("abcdefg", 3) == "a, b, c and 4 more"
    assert listed("ab") == "a, b"
