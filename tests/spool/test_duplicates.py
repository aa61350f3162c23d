"""A NAME that is still in use is refused, and the first job's caller is not harmed by it."""

from __future__ import annotations

import pytest

from orchestrator.spool.intake import Intake
from orchestrator.state import JobStatus
from orchestrator.store.running import ended
from tests.spool.place import Place, moves_of


def test_a_second_job_file_is_refused_and_the_first_light_untouched(place: Place) -> None:
    place.drop("CRM", "job=FIRST\n")
    place.take()
    before = place.light("CRM").stat()
    place.drop("CRM", "job=SECOND\n", light=False)
    place.take()

    assert [job.status for job in place.rows("CRM")] == ["QUEUED", "REJECTED"]
    assert place.rejected("CRM").read_text() == "job=SECOND\n"
    assert place.why_rejected("CRM") == "the name is in use by job 1, which has not ended\n"
    place.release.release_all()
    after = place.light("CRM").stat()
    assert (after.st_ino, after.st_ctime_ns, after.st_size) == (before.st_ino, before.st_ctime_ns, 0)


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING"])
@pytest.mark.parametrize("touch", ["truncated", "re-created", "left"])
@pytest.mark.parametrize("ending", [JobStatus.FINISHED, JobStatus.FAILED])
def test_the_first_job_ends_properly_whatever_the_second_caller_did_to_its_light(
    place: Place, state: str, touch: str, ending: JobStatus
) -> None:
    place.drop("CRM", "job=FIRST\n")
    place.take()
    if state == "RUNNING":
        place.run("CRM")
    if touch == "re-created":
        place.light("CRM").unlink()
    place.drop("CRM", "job=SECOND\n", light=touch != "left")
    place.take()
    place.release.release_all()
    assert place.light("CRM").read_text() == ""

    if state == "QUEUED":
        place.run("CRM")
    assert ended(place.active("CRM"), ending, "no room")
    place.release.release_all()

    if ending is JobStatus.FINISHED:
        assert not place.light("CRM").exists()
    else:
        assert place.light("CRM").read_text().startswith("FAILED id=1 job=FIRST ")
    assert all(job.released_at for job in place.rows())


def test_two_job_files_of_one_name_in_one_look_are_one_job_and_one_refusal(place: Place) -> None:
    """The second lands while the first is only claimed: the taker was killed before it wrote the row."""
    place.drop("CRM", "job=FIRST\n")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.spool.intake.take", _die)
        with pytest.raises(KeyboardInterrupt):
            place.take()
    place.drop("CRM", "job=SECOND\n")
    place.take()

    assert [(job.status, job.job) for job in place.rows("CRM")] == [("QUEUED", "FIRST"), ("REJECTED", "SECOND")]


def _die(arrivals: object) -> None:
    raise KeyboardInterrupt


def test_a_name_may_be_used_again_after_its_end(place: Place) -> None:
    for number in range(3):
        place.drop("CRM", f"job=J{number}\n")
        place.take()
        assert place.row("CRM").status == "QUEUED"
        assert place.light("CRM").read_text() == ""
        place.finish("CRM")
        place.release.release_all()
        assert not place.light("CRM").exists()

    assert [job.status for job in place.rows("CRM")] == ["FINISHED"] * 3


def test_a_name_is_used_again_over_the_red_light_of_its_last_job(place: Place) -> None:
    place.drop("CRM")
    place.take()
    place.end("CRM", JobStatus.FAILED)
    place.release.release_all()
    assert place.light("CRM").read_text() != ""
    place.drop("CRM", light=False)
    place.take()

    assert place.light("CRM").read_text() == ""
    place.finish("CRM")
    place.release.release_all()
    assert not place.light("CRM").exists()


@pytest.mark.parametrize("first", [JobStatus.FINISHED, JobStatus.FAILED])
@pytest.mark.parametrize("light", ["the same", "a new one", "none"])
def test_a_job_that_was_not_released_yet_is_superseded_by_the_next_of_its_name(
    place: Place, first: JobStatus, light: str
) -> None:
    place.drop("CRM", "job=FIRST\n")
    place.take()
    place.end("CRM", first)
    if light != "the same":
        place.light("CRM").unlink()
    place.drop("CRM", "job=SECOND\n", light=light != "none")
    place.take()
    old, new = place.rows("CRM")
    assert old.released_at is not None
    assert moves_of(old)[-1] == "superseded"
    assert new.status == "QUEUED"

    place.release.release_all()
    assert place.light("CRM").read_text() == ""  # neither green nor red for what the first one did
    place.end("CRM", JobStatus.FAILED)
    place.release.release_all()
    assert place.light("CRM").read_text().startswith("FAILED id=2 job=SECOND ")


def test_the_same_name_in_another_spool_is_another_job(place: Place) -> None:
    (place.folder / "other").mkdir()
    file = place.folder / "orchestrator.toml"
    both = Place(place.folder, file.read_text() + '\n[spools.other]\npath = "other"\n')
    both.drop("CRM")
    (place.folder / "other" / "CRM.job").touch()
    both.take()
    Intake(both.settings, both.settings.spools["other"], "here").take_all()

    assert [(job.spool, job.status) for job in both.rows("CRM")] == [("default", "QUEUED"), ("other", "QUEUED")]
