"""The programs: killed at any moment, stopped, reread, run side by side, run by cron."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator.simulator import Simulator
from tests.house import ORCHESTRATOR, House, wait_for


def test_a_masking_job_outlives_kill_9_of_every_program_and_is_started_once(masking_house: House) -> None:
    with Simulator(seconds=1.5) as engine:
        masking_house.add_engine("engine1", engine.url)
        programs = [masking_house.start("watch"), masking_house.start("schedule")]
        caller = masking_house.call("MASK_CRM")
        wait_for(lambda: engine.executions())
        for program in programs:
            masking_house.kill(program)
        masking_house.start("watch")
        masking_house.start("schedule")

        assert caller.wait(20) == 0
        assert len(engine.executions()) == 1


def test_jobs_end_right_whatever_moment_the_programs_are_killed_at(masking_house: House) -> None:
    with Simulator(seconds=0.2, cpus=4) as engine:
        masking_house.add_engine("engine1", engine.url, cpus=4, more='crashed_start_wait = "500ms"')
        jobs = {f"N{number}": ("MASK_CRM", "MASK_BROKEN", "MASK_LEAKS")[number % 3] for number in range(12)}
        for number, (name, job) in enumerate(jobs.items()):
            masking_house.drop(name, f"job={job}")
            if number % 2 == 0:
                program = masking_house.start()
                time.sleep(0.05 * number / 2)
                masking_house.kill(program)
        masking_house.start()
        # A start that was killed before it left is waited for as long as a start may take: rare, and never less.
        green = {name for name in jobs if masking_house.verdict(name, 60) is None}

        assert green == {name for name, job in jobs.items() if job == "MASK_CRM"}
        started = sorted(each["jobName"] for each in engine.executions())
        assert started == sorted(jobs.values())
        wait_for(lambda: masking_house.query("SELECT DISTINCT status, job_id FROM ENGINES") == [("FREE", None)])
        assert masking_house.query("SELECT count(*) FROM QUEUE") == [(12,)]
        assert masking_house.query("PRAGMA integrity_check") == [("ok",)]


def test_a_start_whose_answer_was_lost_is_adopted_and_not_done_again(masking_house: House) -> None:
    with Simulator(seconds=0.5) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        masking_house.wait_for_engine("engine1", "UP")
        engine.fault(lost_answer=1)

        assert masking_house.call("MASK_CRM").wait(30) == 0
        assert len(engine.executions()) == 1


def test_a_start_that_never_arrived_is_done_again(masking_house: House) -> None:
    with Simulator(seconds=0.2) as engine:
        masking_house.add_engine("engine1", engine.url, more='lost_start_wait = "200ms"')
        masking_house.start()
        masking_house.wait_for_engine("engine1", "UP")
        engine.fault(lost_request=1)

        assert masking_house.call("MASK_CRM").wait(30) == 0
        assert len(engine.executions()) == 1


def test_a_command_outlives_every_program_and_its_exit_status_still_arrives(house: House) -> None:
    program = house.start()
    house.drop("LONG", "command=sh", "param.line=sleep 1; exit 5")
    house.wait_for_status("LONG", "RUNNING")
    house.kill(program)
    time.sleep(1.2)
    house.start()

    assert " exit=5 " in (house.verdict("LONG") or "")


@pytest.mark.parametrize("program", ["up", "watch", "schedule"])
def test_sigterm_stops_a_program_soon_also_while_an_engine_hangs(masking_house: House, program: str) -> None:
    with Simulator() as engine:
        masking_house.add_engine("engine1", engine.url)
        engine.fault(hang=3)
        started = masking_house.start(program)
        time.sleep(0.3)
        began = time.monotonic()
        started.send_signal(signal.SIGTERM)

        assert started.wait(10) == 0
        assert time.monotonic() - began < 5  # 2 s are promised; the machine may be busy


def test_sighup_rereads_the_settings_and_a_wrong_file_changes_nothing(house: House) -> None:
    program = house.start()
    good = house.settings.read_text()
    house.settings.write_text(good + '\n[commands.later]\nrum = ["/bin/true"]\n')
    program.send_signal(signal.SIGHUP)
    wait_for(lambda: "settings are not reread" in house.log.read_text())
    assert "orchestrator.toml: commands.later.run: " in house.log.read_text()
    house.settings.write_text(good + '\n[commands.later]\nrun = ["/bin/true"]\n')
    program.send_signal(signal.SIGHUP)
    wait_for(lambda: "settings reread" in house.log.read_text())
    house.drop("LATER", "command=later")

    assert house.verdict("LATER") is None


def test_sighup_with_settings_that_cannot_even_be_looked_at_changes_nothing(house: House) -> None:
    program = house.start()
    good = house.settings.read_text()
    for bad in (
        f'[spools.more]\npath = "{"a" * 300}"\n',
        '[engines.more]\nkind = "delphix"\nurl = "https://h"\nusername = "u"\npassword = "env:P"\n'
        f'verify = "{"a" * 300}"\n',
        "deep = " + "[" * 5000,
    ):
        said = house.log.read_text().count("settings are not reread")
        house.settings.write_text(f"{bad}\n{good}")
        program.send_signal(signal.SIGHUP)
        wait_for(lambda said=said: house.log.read_text().count("settings are not reread") > said)  # type: ignore[misc]
    house.drop("STILL", "command=true")

    assert house.verdict("STILL") is None


def test_sighup_does_not_wait_for_an_engine_that_hangs(house: House) -> None:
    with Simulator(seconds=0.1) as engine:
        house.add_engine("engine1", engine.url)
        engine.fault(hang=1)
        program = house.start()
        time.sleep(0.3)  # its first request is under way
        program.send_signal(signal.SIGHUP)
        wait_for(lambda: "settings reread" in house.log.read_text(), 5)
        house.drop("LOCAL", "command=true")

        assert house.verdict("LOCAL", 5) is None
        assert program.poll() is None


def test_two_schedulers_on_one_database_start_each_job_once_and_never_too_many(masking_house: House) -> None:
    with Simulator(seconds=0.2, cpus=20) as engine:
        masking_house.add_engine("engine1", engine.url, cpus=3)
        names = [f"J{number}" for number in range(20)]
        for name in names:
            masking_house.drop(name, "job=MASK_CRM")
        masking_house.start("schedule")
        masking_house.start("schedule")
        masking_house.start("watch")
        for name in names:
            assert masking_house.verdict(name, 40) is None

        runs = engine.executions()
        assert len(runs) == 20
        moments = sorted([(each["startTime"], 1) for each in runs] + [(each["endTime"], -1) for each in runs])
        running, most = 0, 0
        for _, change in moments:
            running += change
            most = max(most, running)
        assert most <= 3


def test_cron_alone_runs_a_job(masking_house: House) -> None:
    with Simulator(seconds=0.1) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.drop("CRON", "job=MASK_CRM")
        masking_house.run("watch", "--once")
        masking_house.run("scheduler", "--once")
        assert masking_house.job("CRON")["status"] == "SCHEDULED"
        masking_house.run("checkstatus", "--once")
        time.sleep(0.2)
        masking_house.run("checkstatus", "--once")

        assert masking_house.light("CRON") is None
        masking_house.run("watch", "--once")
        assert (masking_house.spool / ".heartbeat").exists()


def test_one_bad_spool_does_not_keep_cron_from_serving_the_others(house: House, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / ".orchestrator").touch()
    good = house.settings.read_text()
    house.settings.write_text(f'[spools.aaa]\npath = "bad"\n{good}')
    house.run("checkstatus", "--once")
    house.drop("CRON", "command=true")
    done = house.run("watch", "--once", status=1)

    assert done.stdout == "1 taken\n"
    [line] = done.stderr.splitlines()
    assert "spool aaa (" in line
    assert house.job("CRON")["status"] == "QUEUED"
    assert (house.spool / ".heartbeat").exists()


def test_a_database_that_a_stranger_locks_for_ten_seconds_loses_nothing(house: House) -> None:
    house.start()
    house.drop("BEFORE", "command=true")
    assert house.verdict("BEFORE") is None
    wait_for(lambda: house.job("BEFORE")["released_at"])  # else to record that has the first turn to wait for the lock
    with contextlib.closing(sqlite3.connect(house.database, isolation_level=None)) as stranger:
        stranger.execute("BEGIN EXCLUSIVE")
        house.drop("DURING", "command=true")
        (house.spool / "TOUCHED.job").touch()
        time.sleep(10)
        stranger.execute("COMMIT")

    assert house.verdict("DURING", 30) is None
    assert (house.verdict("TOUCHED", 30) or "").startswith("REJECTED ")
    assert "cannot take jobs now" in house.log.read_text()


def test_a_program_that_starts_while_a_stranger_locks_the_database_waits_and_goes_on(house: House) -> None:
    house.run("jobs")  # makes the database
    with contextlib.closing(sqlite3.connect(house.database, isolation_level=None)) as stranger:
        stranger.execute("BEGIN EXCLUSIVE")
        program = house.start()
        time.sleep(7)  # more than one statement waits
        assert program.poll() is None, house.log.read_text()
        stranger.execute("COMMIT")
    house.drop("AFTER", "command=true")

    assert house.verdict("AFTER", 30) is None


def test_a_spool_that_vanishes_and_comes_back_is_served_again(house: House) -> None:
    house.start()
    shutil.rmtree(house.spool)
    wait_for(lambda: "cannot be seen" in house.log.read_text(), 40)
    house.spool.mkdir()
    house.drop("AGAIN", "command=true")

    assert house.verdict("AGAIN") is None


def test_an_engine_that_goes_away_for_a_while_finishes_its_job(masking_house: House) -> None:
    with Simulator(seconds=1) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        caller = masking_house.call("MASK_CRM")
        wait_for(lambda: engine.executions())
        engine.stop()
        masking_house.wait_for_engine("engine1", "DOWN")
        engine.start()

        assert caller.wait(60) == 0
        assert len(engine.executions()) == 1


def test_a_spool_that_is_polled_is_served_too(house: House) -> None:
    house.settings.write_text(
        house.settings.read_text().replace('path = "spool"', 'path = "spool"\nobserver = "polling"')
    )
    house.start()
    wait_for(lambda: "polled every" in house.log.read_text())
    house.drop("POLLED", "command=true")

    assert house.verdict("POLLED", 10) is None


def test_several_spools_each_have_their_own_defaults(house: House, tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    house.add_settings(
        f'[spools.night]\npath = "{tmp_path}/night"\npriority = 7\ntimeout = "2h"\nshell_commands = true'
    )
    house.start()
    house.drop("DAY", "command=true")
    (tmp_path / "night" / "NIGHT.trafficlight").touch()
    (tmp_path / "night" / "NIGHT.job").write_text("command=exit 3\n")
    house.wait_for_status("NIGHT", "FAILED")

    assert house.verdict("DAY") is None
    night = house.job("NIGHT")
    assert (night["spool"], night["priority"], night["timeout"], night["exit"]) == ("night", 7, 7200, 3)
    house.drop("SHELL", "command=exit 3")
    assert (house.verdict("SHELL") or "").startswith("REJECTED ")


def test_no_command_ends_in_a_traceback(house: House, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[spools.default]\npath = 'nowhere'\n")
    for arguments, status in [
        (["--config", str(broken), "up"], 78),
        (["--config", str(tmp_path / "none.toml"), "jobs"], 78),
        (["jobz"], 64),
        (["show", "NOBODY"], 1),
        (["engine", "add", "nowhere"], 64),
        (["submit", "X", "no pair"], 64),
        (["scheduler"], 64),
    ]:
        settings = [] if arguments[0] == "--config" else ["--config", str(house.settings)]
        done = subprocess.run(
            [*ORCHESTRATOR, *settings, *arguments], capture_output=True, text=True, check=False, env=os.environ
        )
        assert done.returncode == status, done
        assert len(done.stderr.splitlines()) == 1, done.stderr
