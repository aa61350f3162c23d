"""P1: each job file becomes exactly one row of QUEUE, whatever crashes between."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.errors import OrchestratorError
from orchestrator.spool import intake as intake_module
from orchestrator.state import JobStatus
from tests.spool.place import Killer, Place, bash, moves_of, output_of, until


def test_a_job_file_becomes_one_row(place: Place) -> None:
    place.drop("CRM", "job=MASK_CRM\npriority=70\nparam.x=1\n")

    assert place.take() == 1

    job = place.row("CRM")
    assert (job.status, job.job, job.priority, job.params) == ("QUEUED", "MASK_CRM", 70, '{"x": "1"}')
    assert job.owner == os.geteuid()
    assert moves_of(job) == ["-> QUEUED"]
    assert place.listing() == ["CRM.trafficlight"]
    assert place.private() == []
    assert place.take() == 0
    assert len(place.rows()) == 1


def test_an_empty_file_asks_for_the_job_of_its_name(place: Place) -> None:
    place.drop("MASK_CRM@nightly-1")
    place.take()

    assert place.row("MASK_CRM@nightly-1").job == "MASK_CRM"


def test_the_spools_defaults_stand_where_the_file_says_nothing(tmp_path: Path, database: str) -> None:
    place = Place(
        tmp_path, '[spools.default]\npath = "spool"\npriority = 9\ntimeout = "2h"\n[engines.e]\nkind="delphix"'
    )
    place.drop("A")
    place.drop("B", "priority=0\ntimeout=5\n")
    place.take()

    assert (place.row("A").priority, place.row("A").timeout) == (9, 7200)
    assert (place.row("B").priority, place.row("B").timeout) == (0, 5)


def test_more_files_than_fit_into_one_transaction_are_all_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "BATCH", 7)
    for number in range(30):
        place.drop(f"J{number}")

    assert place.take() == 30
    assert len(place.rows()) == 30


def test_a_crash_at_any_step_leaves_one_row_after_the_next_look(place: Place, killer: Killer) -> None:
    for steps in itertools.count():
        name = f"J{steps}"
        place.drop(name, light=False)
        survived = killer.survives(steps, place.take)
        assert survived or (place.path / f"{name}.job").exists() or place.light(name).read_text() == ""
        place.take()

        assert [job.status for job in place.rows(name)] == ["QUEUED"], f"killed before step {steps}"
        assert moves_of(place.row(name)) == ["-> QUEUED"]
        assert place.light(name).read_text() == ""
        assert not (place.path / f"{name}.job").exists()
        assert place.private() == []
        if survived:
            break
    assert steps > 12


def test_a_crash_at_any_step_leaves_a_refused_file_whole_with_its_reason(place: Place, killer: Killer) -> None:
    for steps in itertools.count():
        name = f"J{steps}"
        place.drop(name, "job=A\nbad\n")
        survived = killer.survives(steps, place.take)
        place.take()
        place.release.release_all()

        assert [job.status for job in place.rows(name)] == ["REJECTED"], f"killed before step {steps}"
        assert place.rejected(name).read_text() == "job=A\nbad\n"
        assert place.why_rejected(name) == "line 2: not key=value: 'bad'\n", f"killed before step {steps}"
        assert place.light(name).read_text().startswith("REJECTED ")
        assert place.private() == []
        if survived:
            break
    assert steps > 15


@pytest.mark.parametrize("status", [JobStatus.FINISHED, JobStatus.FAILED])
def test_a_light_that_was_released_while_the_taker_was_dead_stays_as_it_is(
    place: Place, killer: Killer, status: JobStatus
) -> None:
    for steps in itertools.count():
        name = f"J{steps}"
        place.drop(name, light=False)
        survived = killer.survives(steps, place.take)
        if place.rows(name):
            place.end(name, status)
            place.release.release_all()
            place.take()
            if status is JobStatus.FINISHED:
                assert not place.light(name).exists(), f"killed before step {steps}"
            else:
                assert place.light(name).read_text().startswith("FAILED "), f"killed before step {steps}"
        place.take()
        if survived:
            break


def test_a_refusal_that_was_told_while_the_taker_was_dead_stays_told(place: Place, killer: Killer) -> None:
    for steps in itertools.count():
        name = f"J{steps}"
        place.drop(name, "bad\n")
        survived = killer.survives(steps, place.take)
        place.release.release_all()
        place.take()
        place.release.release_all()
        assert place.light(name).read_text().startswith("REJECTED "), f"killed before step {steps}"
        if survived:
            break


def test_two_intakes_at_once_take_each_file_once(place: Place, database: str) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from orchestrator.settings import load_settings
from orchestrator.spool import intake
from orchestrator.spool.claim import ignore_lease_breaks
from orchestrator.store.database import open_database
ignore_lease_breaks()
intake.BATCH = 3  # so that the two take turns
settings = load_settings(Path({str(place.folder / "orchestrator.toml")!r}))
open_database({database!r})
taker = intake.Intake(settings, settings.spools["default"], "here")
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + 0.3
taken = 0
while time.monotonic() < end:
    taken += taker.take_all()
print(taken)
"""
    takers = [
        subprocess.Popen([sys.executable, "-c", script], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for number in range(200):
        place.drop(f"J{number}", light=number % 2 == 0)
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
    taken = 0
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("\n")
        taker.stdin.flush()
    for taker in takers:
        taken += int(taker.communicate(timeout=20)[0])
        assert taker.returncode == 0

    assert sorted(job.name for job in place.rows()) == sorted(f"J{number}" for number in range(200))
    assert {job.status for job in place.rows()} == {"QUEUED"}
    assert taken == 200
    assert place.private() == []


def test_two_takers_may_open_a_new_spool_at_the_same_moment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.mkdir

    def beaten(*args: object, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]
        real(*args, **options)  # type: ignore[arg-type] # the other one was first: FileExistsError

    monkeypatch.setattr(os, "mkdir", beaten)
    place.drop("CRM")

    assert place.take() == 1


def test_a_job_file_moved_in_by_the_shell_is_taken(place: Place) -> None:
    output_of(bash("echo job=A > .x.tmp && mv .x.tmp A.job; touch B.job; echo job=C > C.job", place.path))

    assert place.take() == 3
    assert {job.name: job.job for job in place.rows()} == {"A": "A", "B": "B", "C": "C"}


def test_hidden_files_and_strangers_are_never_taken(place: Place) -> None:
    for name in (".job", ".A.job", "A.jobs", "A.JOB", "job", "README.md", "A.job.tmp"):
        (place.path / name).write_text("job=A\n")
    before = sorted(os.listdir(place.path))

    assert place.take() == 0
    assert place.rows() == []
    assert sorted(os.listdir(place.path)) == sorted([*before, ".orchestrator"])


def test_a_file_that_is_gone_again_is_no_trouble(place: Place) -> None:
    assert place.intake.take_files(["A.job", "A.cancel", "b d.job"], certain=True) == 0
    assert place.rows() == []
    assert place.listing() == []


def test_an_event_takes_the_named_file_only(place: Place) -> None:
    place.drop("A")
    place.drop("B")

    assert place.intake.take_files(["A.job"], certain=True) == 1
    assert place.statuses() == {"A": "QUEUED"}


def test_one_file_that_cannot_be_taken_keeps_no_other_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.rename

    def rename(source: str, *rest: object, **options: object) -> None:
        if source == "BAD.job":
            raise OSError(5, "Input/output error", source)
        real(source, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", rename)
    place.drop("BAD")
    place.drop("GOOD")

    assert place.take() == 1
    assert place.statuses() == {"GOOD": "QUEUED"}
    assert (place.path / "BAD.job").exists()
    assert "BAD.job in spool default cannot be taken now" in caplog.text


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_private_folder_that_others_may_write_is_not_used(place: Place, mode: int) -> None:
    private = place.path / ".orchestrator"
    private.mkdir()
    private.chmod(mode)
    (private / "FORGED.0123456789abcdef").write_text("job=A\n")

    with pytest.raises(OrchestratorError) as told:
        place.take()

    assert "\n" not in str(told.value)
    assert f"{private}: belongs to uid {os.geteuid()}, mode {mode:03o}" in str(told.value)
    assert place.rows() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_private_folder_of_somebody_else_is_not_used(place: Place) -> None:
    private = place.path / ".orchestrator"
    private.mkdir(mode=0o700)
    os.chown(private, 12345, 12345)

    with pytest.raises(OrchestratorError, match="belongs to uid 12345"):
        place.take()


def test_a_private_folder_that_is_a_link_is_not_used(place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (place.path / ".orchestrator").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OrchestratorError, match="cannot be used"):
        place.take()


def test_a_taker_that_is_really_killed_leaves_its_claim_to_the_next(place: Place, database: str) -> None:
    script = f"""
import os
from pathlib import Path
from orchestrator.settings import load_settings
from orchestrator.spool import intake
from orchestrator.store.database import open_database
settings = load_settings(Path({str(place.folder / "orchestrator.toml")!r}))
open_database({database!r})
intake.take = lambda arrivals: os.kill(os.getpid(), 9)
intake.Intake(settings, settings.spools["default"], "here").take_all()
"""
    place.drop("CRM", "job=MASK_CRM\n", light=False)
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=20).returncode == -9
    assert place.private() != []
    assert place.light("CRM").read_text() == ""

    started = time.monotonic()
    assert place.take() == 1
    assert time.monotonic() - started < 5  # the dead one's lock does not hold us up
    assert until(lambda: place.row("CRM"), "the row").job == "MASK_CRM"
