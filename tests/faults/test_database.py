"""The database locked, read-only, full, gone, torn, or not ours: told in one line, and no caller is forgotten."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disk import NO_OVERRIDE, fill, mount, needs_root, unmount
from tests.faults.points import WHOLE
from tests.house import ORCHESTRATOR, House, wait_for

LOCKED = 60 if WHOLE else 7  # seconds
TORN = 100 if WHOLE else 2  # logs torn

PROGRAMS = ("watch", "schedule")
LOCK = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], isolation_level=None).execute("BEGIN EXCLUSIVE"); print(flush=True); sys.stdin.read()
"""


def green(house: House, name: str, seconds: float = 30) -> None:
    """Drop a job and see it end well."""
    house.drop(name, "command=true")
    assert house.verdict(name, seconds) is None


def told(house: House, what: str) -> list[str]:
    """Give the lines of the log that say so. None of them may be a traceback."""
    log = house.log.read_text()
    assert "Traceback" not in log
    return [line for line in log.splitlines() if what in line]


def start_in_vain(house: House, program: str = "up") -> str:
    """Start a program that refuses to; the one line that it says."""
    done = subprocess.run(
        [*ORCHESTRATOR, "--config", str(house.settings), program],
        capture_output=True, text=True, timeout=60, env=house.environment, check=False,
    )  # fmt: skip
    assert done.returncode == 74, done
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    return done.stderr


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database locked, as a stranger."""
    stranger = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        yield
        assert stranger.stdin is not None
        stranger.stdin.close()


def test_a_database_that_is_locked_for_long_delays_and_no_more(house: House) -> None:
    for program in PROGRAMS:
        house.start(program)
    green(house, "BEFORE")
    with locked(house.database):
        house.drop("LATE", "command=true")
        time.sleep(LOCKED)
        assert house.light("LATE") == ""
        assert all(program.poll() is None for program in house.programs)
    assert house.verdict("LATE", 30) is None
    lines = told(house, "database is locked")
    assert 1 <= len(lines) <= 5  # one a step
    assert len(told(house, "spool default: the database cannot take jobs now: database is locked")) == 1


def test_a_program_that_is_started_while_the_database_is_locked_waits(house: House) -> None:
    program = house.start("up")
    green(house, "BEFORE")
    house.kill(program)
    house.query("PRAGMA journal_mode = DELETE")  # else SQLite lets readers in, and opening it waits for nobody
    with house.log.open("ab") as log, locked(house.database):
        starting = subprocess.Popen(
            [*ORCHESTRATOR, "--config", str(house.settings), "up"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=house.environment,
        )  # fmt: skip
        house.programs.append(starting)
        time.sleep(LOCKED)  # more than SQLite itself waits
        assert starting.poll() is None
    green(house, "AFTER")
    assert len(told(house, "the database cannot be used: database is locked; trying again")) == 1


@needs_root
def test_a_database_that_is_read_only_is_told_and_loses_nothing(tmp_path: Path) -> None:
    house = House(tmp_path / "house", NO_OVERRIDE)
    house.add_settings('[engines.local]\nkind = "command"\ncpus = 2\n[commands.true]\nrun = ["/bin/true"]')
    try:
        first = house.start()
        green(house, "BEFORE")
        house.kill(first)
        files = [file for file in house.folder.iterdir() if file.name.startswith("orchestrator.db")]
        for file in files:
            file.chmod(0o444)
        house.start()
        house.drop("LATE", "command=true")
        wait_for(lambda: told(house, "spool default: the database cannot take jobs now: attempt to write a readonly"))
        assert house.light("LATE") == ""
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                file.chmod(0o644)
        # SQLite has opened it for reading only, for all threads: to be started again is what helps.
        house.kill(house.programs[-1])
        house.start()
        assert house.verdict("LATE", 30) is None
        assert len(told(house, "spool default: the database cannot take")) == 1
    finally:
        house.close()


@needs_root
@pytest.mark.parametrize("what", ["the database", "the spool"])
def test_a_full_file_system_delays_and_no_more(tmp_path: Path, what: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk)
    house = House(tmp_path / "house")
    try:
        house.add_settings('[engines.local]\nkind = "command"\ncpus = 2\n[commands.true]\nrun = ["/bin/true"]')
        if what == "the database":
            house.settings.write_text(f'database = "sqlite:///{disk}/orchestrator.db"\n' + house.settings.read_text())
            house.database = disk / "orchestrator.db"
        else:
            house.spool.rmdir()
            house.spool.symlink_to(disk)
        house.start()
        green(house, "BEFORE")
        house.drop("LATE", "command=true")  # while there is room for it
        assert house.verdict("LATE") is None
        names = [f"J{number}" for number in range(20)]
        if what == "the spool":
            for name in names:  # callers without a light: one is to be made where nothing can be
                (house.spool / f".{name}").write_text("command=true\n")
            filler = fill(disk, inodes=True)
            for name in names:
                (house.spool / f".{name}").rename(house.spool / f"{name}.job")
        else:
            filler = fill(disk)
            for name in names:
                house.drop(name, "command=true")
        wait_for(lambda: told(house, "full") or told(house, "No space left"), 20, house.log.read_text)
        time.sleep(1.5)
        assert len(told(house, "full") + told(house, "No space left")) <= len(names) + 5  # each once
        assert all(program.poll() is None for program in house.programs)
        if what == "the spool":
            assert {name for name in names if (house.spool / f"{name}.job").exists()} == set(names)
        for file in filler:
            file.unlink()
        for name in names:
            wait_for(lambda name=name: not (house.spool / f"{name}.job").exists(), 40)  # type: ignore[misc]
            assert house.verdict(name, 40) is None, house.log.read_text()
        assert house.query("SELECT count(*) FROM QUEUE") == [(len(names) + 2,)]
        assert house.query("PRAGMA integrity_check") == [("ok",)]
        told(house, "")
    finally:
        house.close()
        unmount(disk)


@pytest.mark.parametrize("back", ["the same file", "a copy of it"])
def test_a_database_that_is_taken_away_stops_all_until_it_is_back(house: House, tmp_path: Path, back: str) -> None:
    for program in PROGRAMS:
        house.start(program)
    green(house, "BEFORE")
    kept = tmp_path / "kept"
    kept.mkdir()
    files = ("orchestrator.db", "orchestrator.db-wal", "orchestrator.db-shm")
    if back == "a copy of it":
        with (
            contextlib.closing(sqlite3.connect(house.database)) as one,
            contextlib.closing(sqlite3.connect(kept / "orchestrator.db")) as other,
        ):
            one.backup(other)
        for file in files:
            (house.folder / file).unlink()
    else:
        for file in files:
            (house.folder / file).rename(kept / file)

    wait_for(
        lambda: len(told(house, "schedule: cannot work now: the database cannot serve: ")) == 1, 5, house.log.read_text
    )
    house.drop("LATE", "command=true")
    time.sleep(1.2)
    assert not house.database.exists()
    assert house.light("LATE") == ""
    assert (house.spool / "LATE.job").exists()
    assert len(told(house, "spool default: ")) == 1
    assert "was taken away under the running programs" in told(house, "spool default: ")[0]
    refused = house.run("jobs", status=74)
    assert "the database is missing, but it was there before: restore it" in refused.stderr
    assert not house.database.exists()

    for file in files:
        if (kept / file).exists():
            shutil.move(kept / file, house.folder / file)
    assert house.verdict("LATE", 20) is None, house.log.read_text()
    green(house, "AFTER")
    assert house.query("SELECT name FROM QUEUE ORDER BY id") == [("BEFORE",), ("LATE",), ("AFTER",)]
    assert house.query("PRAGMA integrity_check") == [("ok",)]
    assert len(told(house, "the database is there again")) == len(PROGRAMS)


def test_another_file_in_the_place_of_the_database_is_not_taken_for_it(house: House, tmp_path: Path) -> None:
    house.start()
    green(house, "BEFORE")
    house.database.rename(tmp_path / "aside.db")
    house.database.touch()
    wait_for(lambda: told(house, "another file is in the place of the database"), 5)
    house.drop("LATE", "command=true")
    time.sleep(1.5)
    assert house.light("LATE") == ""
    assert house.database.stat().st_size == 0
    (tmp_path / "aside.db").rename(house.database)
    assert house.verdict("LATE", 20) is None


@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_a_database_that_is_missing_at_the_start_is_never_replaced_in_silence(house: House, how: str) -> None:
    program = house.start()
    green(house, "BEFORE")
    house.kill(program)
    for file in house.folder.glob("orchestrator.db*"):
        file.unlink()
    if how == "emptied":
        house.database.touch()
    for each in ("up", "watch", "schedule"):
        line = start_in_vain(house, each)
        assert "the database is missing, but it was there before: restore it; or, to begin with an empty queue" in line
    assert not house.database.exists() or house.database.stat().st_size == 0
    (house.folder / "run" / "new-queue").touch()
    house.start()
    green(house, "AFTER")
    assert not (house.folder / "run" / "new-queue").exists()


def test_a_database_is_missed_by_the_callers_alone_too(house: House) -> None:
    program = house.start()
    green(house, "BEFORE")
    house.drop("WAITS", "command=sh", "param.line=sleep 100")
    house.wait_for_status("WAITS", "RUNNING")
    house.kill(program)
    for file in house.folder.glob("orchestrator.db*"):
        file.unlink()
    shutil.rmtree(house.folder / "run")
    line = start_in_vain(house)
    assert "callers wait in spool default for jobs that were taken (WAITS): restore it" in line
    assert not house.database.exists()
    (house.folder / "run" / "new-queue").touch()
    os.utime(house.spool / "WAITS.trafficlight", (time.time() - 100, time.time() - 100))
    house.start()
    wait_for(lambda: told(house, "1 lights wait for jobs that nothing knows of (WAITS)"))


def test_callers_who_were_there_before_the_first_start_are_no_sign_of_a_lost_database(house: House) -> None:
    house.drop("FIRST", "command=true")
    (house.spool / "SLOW.trafficlight").touch()  # its job file is still to come
    house.start()
    assert house.verdict("FIRST") is None
    (house.spool / "SLOW.job").write_text("command=true\n")
    assert house.verdict("SLOW") is None


@pytest.mark.parametrize("content", [b"no database " * 500, b"SQLite format 3\x00" + os.urandom(8000)])
def test_a_file_that_is_no_database_is_refused_in_one_line(house: House, content: bytes) -> None:
    house.database.write_bytes(content)
    assert "orchestrator.db: the database cannot be used: " in start_in_vain(house)
    assert house.database.read_bytes() == content


def test_a_database_of_a_newer_orchestrator_is_refused_in_one_line(house: House) -> None:
    house.run("jobs")
    house.query("UPDATE SCHEMA_VERSION SET version = 99")
    assert "the database has schema version 99, this orchestrator knows up to 1: install" in start_in_vain(house)


def test_a_running_program_whose_database_turns_to_garbage_says_so_and_lives(house: House) -> None:
    program = house.start()
    green(house, "BEFORE")
    good = house.database.read_bytes()
    with house.database.open("r+b") as file:
        file.write(b"garbage " * (len(good) // 8 + 1))
    house.drop("LATE", "command=true")
    wait_for(lambda: told(house, "malformed") or told(house, "not a database") or house.light("LATE") is None, 20)
    assert program.poll() is None
    told(house, "")


def test_after_a_torn_log_every_job_is_whole_taken_again_or_missed(house: House) -> None:
    """The write-ahead log of killed programs, cut off or garbled anywhere: SQLite drops all from there on."""
    chance = random.Random("torn")
    log = house.database.with_name("orchestrator.db-wal")
    ended = missed = 0
    for number in range(TORN):
        program = house.start()
        names = [f"R{number}N{each}" for each in range(3)]
        for name in names:
            house.drop(name, "command=true")
        time.sleep(chance.uniform(0.0, 0.3))
        house.kill(program)
        with log.open("r+b") as file:
            size = log.stat().st_size
            place = chance.randrange(size + 1)
            if chance.random() < 0.5:
                file.truncate(place)
            else:
                file.seek(place)
                file.write(chance.randbytes(min(size - place, chance.choice((8, 600, 5000)))))
        for name in names:  # as if they had waited for a minute
            with contextlib.suppress(FileNotFoundError):
                os.utime(house.spool / f"{name}.trafficlight", (time.time() - 100,) * 2)
        program = house.start()
        for name in names:

            def is_known(name: str = name) -> bool:
                return house.light(name) != "" or f"{name}," in _missed(house) or f"{name})" in _missed(house)

            wait_for(is_known, 30, lambda name=name: f"{name}: {house.job(name)}\n{house.log.read_text()}")  # type: ignore[misc]
            light = house.light(name)
            assert light is None or light == "", light
            ended, missed = ended + (light is None), missed + (light == "")
            if light == "":
                (house.spool / f"{name}.trafficlight").unlink()
        assert house.query("PRAGMA integrity_check") == [("ok",)]
        wait_for(lambda: house.query("SELECT DISTINCT status FROM ENGINES") == [("FREE",)], 25)
        house.kill(program)
    told(house, "")
    print(f"\n{TORN} logs torn: {ended} jobs ended, {missed} told as missed, 0 forgotten")


def _missed(house: House) -> str:
    return "\n".join(told(house, "lights wait for jobs that nothing knows of"))
