"""A caller that does something at the very moment of the release."""

from __future__ import annotations

import os

import pytest

from orchestrator.spool import release as release_module
from orchestrator.state import JobStatus
from orchestrator.store.releasing import jobs_to_release
from tests.spool.place import Crash, Place


def at_the_rename(place: Place, name: str, patch: pytest.MonkeyPatch, *, crash: bool = False) -> None:
    """Let a new caller put its light there just before the old one is moved aside; `crash` just after."""
    real = os.rename
    fresh = place.path / ".fresh"
    fresh.touch()

    def rename(source: str, target: str, **options: int) -> None:
        ours = source == f"{name}.trafficlight"
        if ours:
            real(fresh, place.light(name))
        real(source, target, **options)
        if ours and crash:
            raise Crash

    patch.setattr(os, "rename", rename)


def finished(place: Place) -> None:
    """Have a job that waits for its release."""
    place.drop("CRM")
    place.take()
    place.finish("CRM")


def test_the_light_of_a_caller_that_came_just_now_is_put_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(place)
    with monkeypatch.context() as patch:
        at_the_rename(place, "CRM", patch)
        assert place.release.release_all()

    assert place.light("CRM").read_text() == ""
    assert place.row("CRM").released_at is not None
    assert place.private() == []


def test_it_is_put_back_after_a_crash_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(place)
    with monkeypatch.context() as patch:
        at_the_rename(place, "CRM", patch, crash=True)
        with pytest.raises(Crash):
            place.release.release_all()
    assert place.release.release_all()

    assert place.light("CRM").read_text() == ""
    assert place.private() == []


def test_a_job_that_intake_superseded_meanwhile_is_not_released(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller dropped a new job of the same light between the first question and the spool's lock."""
    place.drop("CRM", "job=FIRST\n")
    place.take()
    place.end("CRM", JobStatus.FINISHED)
    asked: list[str] = []

    def ask(host: str) -> object:
        found = jobs_to_release(host)
        if not asked:
            asked.append(host)
            place.drop("CRM", "job=SECOND\n", light=False)
            place.take()
        return found

    monkeypatch.setattr(release_module, "jobs_to_release", ask)
    assert place.release.release_all()

    assert place.light("CRM").read_text() == ""  # the second job has not run: no green
    assert [job.status for job in place.rows("CRM")] == ["FINISHED", "QUEUED"]


@pytest.mark.parametrize("claimed", [False, True], ids=["dropped", "claimed by one who crashed"])
def test_a_light_that_stands_for_a_new_request_is_not_released_for_the_old_job(place: Place, claimed: bool) -> None:
    place.drop("CRM", "job=A\n")
    place.take()
    old = place.finish("CRM")
    file = place.drop("CRM", "job=B\n")  # the same light, emptied again
    if claimed:
        file.rename(place.path / ".orchestrator" / "CRM.0123456789abcdef")

    assert not place.release.release_all()
    assert place.light("CRM").exists()
    place.take()
    assert place.release.release_all()
    assert place.light("CRM").exists()
    assert [job.released_at is None for job in place.rows("CRM")] == [False, True]
    place.end("CRM", JobStatus.FINISHED)
    assert place.release.release_all()
    assert not place.light("CRM").exists()
    assert old.job == "A"
