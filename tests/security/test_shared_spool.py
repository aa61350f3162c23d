"""In a sticky spool nobody is green by another user's doing, and nobody's light or job is another's to end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.spool import claim as claim_module
from orchestrator.state import JobStatus
from tests.security.users import ANNA, BERT, SERVICE, as_root, given
from tests.spool.place import Place

pytestmark = as_root


def drop(place: Place, name: str, owner: int, text: str = "job=A\n", light: int | None = None) -> Path:
    """Drop a job file of `owner` with a light of `light`'s (the owner's where left out; 0: by the orchestrator)."""
    file = given(place.drop(name, text, light=light != 0), owner)
    if light != 0:
        given(place.light(name), owner if light is None else light)
    return file


@pytest.mark.parametrize("light", [ANNA, 0], ids=["her own", "one that the orchestrator makes"])
def test_a_job_with_its_owners_light_is_served(shared: Place, light: int) -> None:
    drop(shared, "CRM", ANNA, light=light)
    shared.take()
    shared.finish("CRM")
    assert shared.release.release_all()

    assert not shared.light("CRM").exists()


def test_a_light_of_another_user_is_not_taken_for_the_job_and_whoever_waits_on_it_sees_red(shared: Place) -> None:
    """It would turn green when its owner likes, or with another user's job."""
    drop(shared, "CRM", ANNA, light=BERT)
    shared.take()
    assert shared.release.release_all()

    told = f"CRM.trafficlight belongs to uid {BERT}, the job file to uid {ANNA}: take another NAME"
    assert shared.why_rejected("CRM") == f"{told}\n"
    assert shared.light("CRM").read_text() == f'REJECTED id=1 reason="{told}"\n'


def test_the_same_after_a_crash_between_the_claim_and_the_row(shared: Place) -> None:
    drop(shared, "CRM", ANNA, light=BERT)
    (shared.path / ".orchestrator").mkdir(mode=0o700)
    (shared.path / "CRM.job").rename(shared.path / ".orchestrator" / f"CRM.{'0' * 16}")
    shared.take()

    assert shared.row("CRM").status == "REJECTED"


def test_a_job_of_another_user_under_the_name_of_a_running_one_does_not_touch_its_light(shared: Place) -> None:
    drop(shared, "CRM", ANNA)
    shared.take()
    before = shared.light("CRM").stat().st_ino
    given(shared.drop("CRM", "job=B\n", light=False), BERT)
    shared.take()
    assert shared.release.release_all()

    assert [job.status for job in shared.rows("CRM")] == ["QUEUED", "REJECTED"]
    assert (shared.light("CRM").read_text(), shared.light("CRM").stat().st_ino) == ("", before)


def test_a_job_of_another_user_takes_neither_name_nor_light_of_one_that_was_not_told_yet(shared: Place) -> None:
    drop(shared, "CRM", ANNA)
    shared.take()
    shared.end("CRM", JobStatus.FAILED)
    given(shared.drop("CRM", "job=B\n", light=False), BERT)
    shared.light("CRM").unlink()
    shared.light("CRM").touch()
    given(shared.light("CRM"), BERT)  # as where she had made none, and he makes it now
    shared.take()

    assert shared.why_rejected("CRM") == (f"the name is in use by job 1 of uid {ANNA}, whose caller was not told yet\n")
    assert shared.row("CRM").status == "REJECTED"
    assert shared.release.release_all()
    assert [job.released_at is None for job in shared.rows("CRM")] == [False, False]


def test_a_verdict_that_another_user_may_not_have_read_yet_is_not_emptied(shared: Place) -> None:
    drop(shared, "CRM", ANNA)
    shared.take()
    shared.end("CRM", JobStatus.FAILED)
    assert shared.release.release_all()
    told = shared.light("CRM").read_text()
    given(shared.drop("CRM", "job=B\n", light=False), BERT)
    shared.take()
    shared.release.release_all()

    assert shared.light("CRM").read_text() == told
    assert shared.row("CRM").status == "REJECTED"


def test_a_verdict_of_an_orchestrator_that_cannot_give_lights_away_stays_too(
    shared: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.light("CRM").write_text("FAILED id=1 reason=x\n")
    given(shared.light("CRM"), SERVICE)
    (shared.path / ".orchestrator").mkdir(mode=0o700)
    given(shared.path / ".orchestrator", SERVICE)
    given(shared.drop("CRM", "job=B\n", light=False), BERT)
    monkeypatch.setattr(os, "geteuid", lambda: SERVICE)
    monkeypatch.setattr(claim_module, "SETTLED", 0)
    shared.take()
    shared.release.release_all()

    assert "in a sticky spool take a new NAME each time" in shared.why_rejected("CRM")
    assert shared.light("CRM").read_text() == "FAILED id=1 reason=x\n"


def test_an_owner_may_use_its_own_name_again(shared: Place) -> None:
    for _ in range(2):
        drop(shared, "CRM", ANNA)
        shared.take()
        shared.end("CRM", JobStatus.FAILED)
        assert shared.release.release_all()

    assert [job.status for job in shared.rows("CRM")] == ["FAILED", "FAILED"]


def test_a_job_file_of_another_user_does_not_hold_up_a_release(shared: Place) -> None:
    """One that he keeps open for writing is never taken, and under its name nobody would ever be told."""
    drop(shared, "CRM", ANNA)
    shared.take()
    shared.finish("CRM")
    with open(shared.path / "CRM.job", "w"):
        given(shared.path / "CRM.job", BERT)
        shared.take()
        assert shared.release.release_all()

        assert not shared.light("CRM").exists()


def test_without_the_sticky_bit_a_team_shares_its_lights(place: Place) -> None:
    drop(place, "CRM", ANNA, light=BERT)
    place.take()

    assert place.row("CRM").status == "QUEUED"


def test_a_hard_link_to_somebody_elses_file_speaks_for_nobody(
    shared: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_module, "SETTLED", 0)
    hers = tmp_path / "hers"
    hers.write_text("job=SECRET\n")
    given(hers, ANNA)
    os.link(hers, shared.path / "CRM.job")
    shared.take()

    row = shared.row("CRM")
    assert row.status == "REJECTED"
    assert row.job is None
    assert row.reason == "it has 2 names (hard links): a job file must be a file of its own"
    assert hers.read_text() == "job=SECRET\n"


def test_a_job_file_that_was_linked_into_place_is_taken_once_its_other_name_is_gone(place: Place) -> None:
    draft = place.path / ".draft"
    draft.write_text("job=A\n")
    os.link(draft, place.path / "CRM.job")
    assert place.take() == 0
    assert place.intake.look_again is not None
    draft.unlink()

    assert place.take() == 1
    assert place.row("CRM").status == "QUEUED"


def test_a_crash_while_a_claim_is_put_back_leaves_one_file(place: Place) -> None:
    (place.path / ".orchestrator").mkdir(mode=0o700)
    place.drop("CRM", "job=A\n")
    os.link(place.path / "CRM.job", place.path / ".orchestrator" / f"CRM.{'0' * 16}")
    place.take()

    assert [job.status for job in place.rows()] == ["QUEUED"]
    assert place.private() == []


def test_a_hard_link_to_the_owners_file_cancels_nothing(
    shared: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drop(shared, "CRM", ANNA)
    shared.take()
    os.link(shared.light("CRM"), shared.path / "CRM.cancel")
    shared.take()

    assert shared.statuses() == {"CRM": "QUEUED"}
    assert not (shared.path / "CRM.cancel").exists()
    assert f"a hard link to a file of uid {ANNA} cancels nothing" in caplog.text


def test_a_cancel_of_another_user_is_refused_and_told(shared: Place, caplog: pytest.LogCaptureFixture) -> None:
    drop(shared, "CRM", ANNA)
    shared.take()
    (shared.path / "CRM.cancel").touch()
    given(shared.path / "CRM.cancel", BERT)
    shared.take()

    assert shared.statuses() == {"CRM": "QUEUED"}
    assert f"uid {BERT} may not cancel a job of uid {ANNA}" in caplog.text


def test_the_owner_of_a_job_is_the_file_that_was_claimed_not_the_one_that_was_looked_at(
    shared: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def rename(source: str, target: str, **options: int) -> None:
        if source == "CRM.job":
            (shared.path / "CRM.job").unlink()
            (shared.path / "CRM.job").write_text("job=OTHER\n")
            given(shared.path / "CRM.job", BERT)
        real(source, target, **options)

    drop(shared, "CRM", ANNA)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        shared.take()

    row = shared.row("CRM")
    assert (row.owner, row.status) == (BERT, "REJECTED")
    assert row.reason == f"CRM.trafficlight belongs to uid {ANNA}, the job file to uid {BERT}: take another NAME"


@pytest.mark.parametrize(
    ("lines", "mode", "status"),
    [
        ("command=id\n", 0o644, "QUEUED"),
        ("command=id\n", 0o664, "REJECTED"),
        ("command=id\n", 0o602, "REJECTED"),
        ("command=greet\nparam.who=x\n", 0o660, "REJECTED"),
        ("job=MASK\n", 0o666, "QUEUED"),
    ],
)
def test_a_command_from_a_file_that_others_may_write_is_not_run_as_its_owner(
    tmp_path: Path, database: str, lines: str, mode: int, status: str
) -> None:
    place = Place(tmp_path, SETTINGS_WITH_SHELL)
    drop(place, "CRM", ANNA, lines).chmod(mode)
    place.take()

    assert place.row("CRM").status == status
    if status == "REJECTED":
        assert f"others than uid {ANNA}, as whom it would run, may write to the job file" in place.why_rejected("CRM")


SETTINGS_WITH_SHELL = """
[spools.default]
path = "spool"
shell_commands = true
[engines.local]
kind = "command"
[engines.engine1]
kind = "delphix"
[commands.greet]
run = ["/bin/echo", "{param.who}"]
"""
