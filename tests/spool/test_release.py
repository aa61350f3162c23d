"""P2 and P3: green only after FINISHED is in QUEUE, red in one rename, and nobody forgotten."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.job import Job
from orchestrator.spool.directory import SpoolDirectory
from orchestrator.spool.light import Released, turn_red
from orchestrator.spool.release import Release
from orchestrator.state import JobStatus
from orchestrator.store.database import StoreBusy
from orchestrator.store.models import Queue
from tests.spool.place import HOST, Killer, Place, bash, moves_of, output_of

RED = [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMEOUT]


def taken(place: Place, name: str = "CRM", text: str = "job=MASK_CRM\n") -> None:
    """Drop a job and take it."""
    place.drop(name, text)
    place.take()


def test_a_light_is_left_alone_while_its_job_has_not_ended(place: Place) -> None:
    taken(place)
    assert place.release.release_all()
    assert place.light("CRM").read_text() == ""
    place.run("CRM")
    assert place.release.release_all()
    assert place.light("CRM").read_text() == ""


def test_green_comes_only_after_finished_is_durable(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = os.rename

    def rename(source: str, target: str, **options: int) -> None:
        if source == "CRM.trafficlight":  # another program's eyes: what is committed
            with sqlite3.connect(tmp_path / "orchestrator.db") as stranger:
                seen.extend(status for (status,) in stranger.execute("SELECT status FROM QUEUE"))
            stranger.close()
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    taken(place)
    place.finish("CRM")
    assert place.light("CRM").exists()
    assert place.release.release_all()

    assert seen == ["FINISHED"]
    assert not place.light("CRM").exists()
    assert place.row("CRM").released_at is not None
    assert place.private() == []


@pytest.mark.parametrize("status", RED)
def test_red_says_who_where_and_why(place: Place, status: JobStatus) -> None:
    taken(place)
    place.end("CRM", status, "rows rejected by target", exit_status=1, detail="two\nmore lines")
    assert place.release.release_all()

    assert place.light("CRM").read_text() == (
        f'{status} id=1 job=MASK_CRM engine=engine1 cpu=CPU1 execution=4711 exit=1 reason="rows rejected by target"\n'
        "two\nmore lines\n"
    )
    assert place.row("CRM").released_at is not None
    assert moves_of(place.row("CRM"))[-1] == "released"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_red_light_belongs_to_its_caller_who_must_be_able_to_remove_it(place: Place) -> None:
    os.chown(place.drop("CRM"), 12345, -1)
    place.take()
    place.end("CRM", JobStatus.FAILED)
    place.release.release_all()

    found = place.light("CRM").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (12345, 0o644)


def test_a_released_light_is_not_touched_again(place: Place) -> None:
    taken(place)
    place.end("CRM", JobStatus.FAILED)
    place.release.release_all()
    place.light("CRM").write_text("")
    place.release.release_all()

    assert place.light("CRM").read_text() == ""


ODD = [
    'a "quoted" name',
    "back\\slash",
    "$(touch pwned)",
    "`touch pwned`",
    "semi;colon",
    "gr\u00fc\u00dfe",
    "\u202eevil",
    "a=b reason=fine",
    "'",
    "*",
    " ",
    "\U0001f6a6",
    "x" * 4096,
]


@pytest.mark.parametrize("odd", ODD, ids=[ascii(odd[:20]) for odd in ODD])
def test_whatever_a_name_or_a_reason_holds_a_shell_can_cut_the_line_up(place: Place, odd: str) -> None:
    taken(place)
    reason = f'{odd}\n"second line"\r\x1b[31m\x00 exit=99'
    Queue.update(job=odd).execute()
    place.end("CRM", JobStatus.FAILED, reason, exit_status=3, detail=f"{odd}\x1b[31m\nlast")
    place.release.release_all()

    text = place.light("CRM").read_bytes()
    assert all(byte == 10 or 32 <= byte < 127 for byte in text)
    line = text.decode().splitlines()[0]
    assert line.count('"') == 2
    assert line.endswith('"')
    script = """
    IFS= read -r line < CRM.trafficlight
    facts=${line%% reason=*}
    set -f; set -- $facts; set +f
    echo "$# $1 $2"
    for fact do case $fact in exit=*) echo "${fact#exit=}";; esac; done
    """
    cut = output_of(bash(script, place.path)).splitlines()
    assert cut == ["7 FAILED id=1", "3"]
    assert not (place.path / "pwned").exists()
    assert len(line) < 4096 * 10 + 700


def test_a_light_without_a_reason_has_one_all_the_same(place: Place) -> None:
    taken(place)
    place.end("CRM", JobStatus.FAILED, None)
    place.release.release_all()

    assert place.light("CRM").read_text().splitlines()[0].endswith('reason="no reason was given"')


def test_a_reader_never_sees_a_partial_or_a_missing_light(place: Place) -> None:
    script = f"""
import os
light = {str(place.light("CRM"))!r}
print("ready", flush=True)
while True:
    with open(light, "rb") as file:  # a missing one is a crash
        text = file.read()
    if text.startswith(b"stop"):
        break
    assert not text or (text.startswith(b"FAILED id=") and text.endswith(b"last line\\n") and len(text) > 9000), text
"""
    place.light("CRM").touch()
    reader = subprocess.Popen([sys.executable, "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    for _ in range(40):
        place.drop("CRM", light=False)
        place.take()
        place.end("CRM", JobStatus.FAILED, "x" * 400, detail="line\n" * 2000 + "last line")
        place.release.release_all()
    stop = place.path / ".stop"
    stop.write_text("stop")
    stop.rename(place.light("CRM"))
    _, errors = reader.communicate(timeout=20)

    assert errors == ""
    assert reader.returncode == 0


def test_a_light_that_is_gone_is_no_trouble(place: Place) -> None:
    for name, status in (("A", JobStatus.FINISHED), ("B", JobStatus.FAILED)):
        taken(place, name)
        place.end(name, status)
        place.light(name).unlink()
    assert place.release.release_all()

    assert place.listing() == []
    assert all(job.released_at for job in place.rows())


@pytest.mark.parametrize("status", [JobStatus.FINISHED, JobStatus.FAILED])
def test_the_light_of_a_later_caller_is_left_alone(place: Place, status: JobStatus) -> None:
    taken(place)
    place.end("CRM", status)
    place.light("CRM").unlink()
    place.light("CRM").touch()
    assert place.release.release_all()

    assert place.light("CRM").read_text() == ""
    assert place.row("CRM").released_at is not None


def test_a_light_that_was_truncated_meanwhile_is_still_the_same(place: Place) -> None:
    taken(place)
    place.finish("CRM")
    place.light("CRM").open("w").close()
    os.utime(place.light("CRM"))
    place.release.release_all()

    assert not place.light("CRM").exists()


def obstacle(place: Place, name: str, kind: str) -> Any:
    """Put something into a light's place; what must be kept open."""
    place.light(name).unlink()
    if kind == "directory":
        place.light(name).mkdir()
        return None
    if kind == "link":
        return place.light(name).symlink_to("/nowhere")
    os.mkfifo(place.light(name))
    return None if kind == "fifo" else os.open(place.light(name), os.O_RDWR)


@pytest.mark.parametrize("kind", ["directory", "link", "fifo", "fifo with a writer"])
@pytest.mark.parametrize("status", [JobStatus.FINISHED, JobStatus.FAILED])
def test_an_odd_thing_in_a_lights_place_keeps_no_other_caller_waiting(
    place: Place, kind: str, status: JobStatus
) -> None:
    for name in ("A", "B", "C"):
        taken(place, name)
        place.end(name, status)
    held = obstacle(place, "B", kind)
    assert place.release.release_all()
    if held is not None:
        os.close(held)

    for name in ("A", "C"):
        assert place.light(name).exists() is (status is JobStatus.FAILED)
    assert place.light("B").is_symlink() or place.light("B").exists()
    assert all(job.released_at for job in place.rows())


def test_a_light_that_cannot_be_changed_keeps_no_other_caller_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.rename

    def rename(source: str, target: str, **options: int) -> None:
        if "B.trafficlight" in (source, target):
            raise PermissionError(1, "Operation not permitted")
        real(source, target, **options)

    for name in ("A", "B", "C"):
        taken(place, name)
        place.end(name, JobStatus.FAILED if name != "C" else JobStatus.FINISHED)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        assert not place.release.release_all()
        assert not place.release.release_all()
    assert place.light("A").read_text() != ""
    assert place.light("B").read_text() == ""
    assert not place.light("C").exists()
    assert [job.name for job in place.rows() if job.released_at is None] == ["B"]
    assert len([line for line in caplog.messages if "Operation not permitted" in line]) == 1

    assert place.release.release_all()
    assert place.light("B").read_text().startswith("FAILED ")


def test_a_spool_that_is_not_in_the_settings_any_more_keeps_its_callers_on_record(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    taken(place)
    place.finish("CRM")
    (place.folder / "new").mkdir()
    (place.folder / "orchestrator.toml").rename(place.folder / "old.toml")
    without = Place(place.folder, '[spools.other]\npath = "new"\n[spools.default]\npath = "spool"\n')
    object.__setattr__(without.settings, "spools", {"other": without.settings.spools["other"]})
    release = Release(without.settings, HOST)
    assert not release.release_all()
    assert not release.release_all()

    assert place.row("CRM").released_at is None
    assert place.light("CRM").exists()
    assert caplog.messages == ["1 callers wait in spool default, which the settings no longer have"]
    assert place.release.release_all()
    assert not place.light("CRM").exists()


def test_a_spool_that_is_away_is_released_when_it_comes_back(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    taken(place)
    place.finish("CRM")
    place.path.rename(place.folder / "away")
    assert not place.release.release_all()
    assert not place.release.release_all()
    assert len(caplog.messages) == 1
    (place.folder / "away").rename(place.path)
    assert place.release.release_all()

    assert not place.light("CRM").exists()


def test_jobs_of_another_host_are_its_own_affair(place: Place) -> None:
    taken(place)
    place.finish("CRM")
    assert Release(place.settings, "elsewhere").release_all()

    assert place.light("CRM").exists()
    assert place.row("CRM").released_at is None


@pytest.mark.parametrize("reuse", ["not", "with a new light", "with a light put over it", "taken already"])
@pytest.mark.parametrize("status", [JobStatus.FINISHED, JobStatus.FAILED])
def test_a_crash_at_any_step_is_told_from_a_new_caller_of_the_name(
    place: Place, killer: Killer, status: JobStatus, reuse: str
) -> None:
    green = status is JobStatus.FINISHED
    steps, survived = 0, False
    while not survived:
        name = f"J{steps}"
        taken(place, name)
        place.end(name, status)
        survived = killer.survives(steps, place.release.release_all)
        light = place.light(name)
        told = not light.exists() or light.read_text() != ""
        if reuse == "not" or not told:
            assert place.release.release_all()
            assert not light.exists() if green else light.read_text().startswith("FAILED ")
        else:
            if reuse == "with a light put over it":
                (place.path / ".new").touch()
                (place.path / ".new").rename(light)
            else:
                light.unlink(missing_ok=True)
                light.touch()
            if reuse == "taken already":
                place.drop(name, light=False)
                place.take()
            assert place.release.release_all()
            assert light.read_text() == "", f"killed before step {steps}"
            if reuse == "taken already":
                place.finish(name)
                assert place.release.release_all()
                assert not light.exists()
        assert all(job.released_at for job in place.rows(name)), f"killed before step {steps}"
        assert reuse == "taken already" or place.private() == []
        steps += 1
    assert steps > 5


@pytest.mark.parametrize("status", [JobStatus.FINISHED, JobStatus.FAILED])
def test_what_was_done_but_not_recorded_is_recorded_at_the_next_start(
    place: Place, status: JobStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(done: object) -> None:
        raise StoreBusy("database is locked")

    taken(place)
    place.end("CRM", status)
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.spool.release.record_released", busy)
        with pytest.raises(StoreBusy):
            place.release.release_all()
    assert place.row("CRM").released_at is None
    before = place.light("CRM").stat().st_ino if status is JobStatus.FAILED else None
    assert place.release.release_all()

    assert place.row("CRM").released_at is not None
    assert (place.light("CRM").stat().st_ino if place.light("CRM").exists() else None) == before


def test_what_a_lost_database_left_behind_does_not_keep_a_caller_waiting(place: Place) -> None:
    """The ids begin again at 1, and the folder of the daemons still holds a light of the old job 1."""
    place.drop("CRM")
    place.take()
    (place.path / ".orchestrator" / "1.green").touch()
    (place.path / ".orchestrator" / "1.red").write_text("half a ver")
    place.finish("CRM")
    assert place.release.release_all()

    assert not place.light("CRM").exists()


def test_a_shell_reads_the_verdict_with_its_own_quoting(place: Place) -> None:
    taken(place)
    place.end("CRM", JobStatus.FAILED, "two words")
    place.release.release_all()

    words = shlex.split(place.light("CRM").read_text())
    assert dict(word.split("=", 1) for word in words[1:])["reason"] == "two words"


def test_a_fault_of_ours_with_one_light_keeps_no_other_caller_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(spool: SpoolDirectory, job: Job) -> Released:
        if job.name == "B":
            raise RuntimeError("a bug")
        return turn_red(spool, job)

    for name in ("A", "B", "C"):
        taken(place, name)
        place.end(name, JobStatus.FAILED)
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.spool.release.turn_red", fault)
        assert not place.release.release_all()
        assert not place.release.release_all()
    assert [job.name for job in place.rows() if job.released_at is None] == ["B"]
    assert len([line for line in caplog.messages if "RuntimeError('a bug')" in line]) == 1

    assert place.release.release_all()
    assert place.light("B").read_text().startswith("FAILED ")
