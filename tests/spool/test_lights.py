"""The light stands before the job file goes, so there is no moment at which a caller can see green too early."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.spool.directory import SpoolDirectory
from orchestrator.spool.light import ensure_light
from orchestrator.state import JobStatus
from tests.spool.place import Place, bash, output_of, until


def lights_at_claim(place: Place, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what the light says at each moment at which the job file is taken away."""
    seen: list[str] = []
    real = os.rename

    def rename(source: str, target: str, **options: int) -> None:
        if source == f"{name}.job":
            light = place.light(name)
            seen.append(light.read_text() if light.is_file() and not light.is_symlink() else "no light")
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    return seen


def test_the_light_is_made_before_a_touched_file_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lights_at_claim(place, "CRM", monkeypatch)
    place.drop("CRM", light=False)
    place.take()

    assert seen == [""]


def test_an_old_verdict_is_replaced_before_the_file_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lights_at_claim(place, "CRM", monkeypatch)
    place.drop("CRM", light=False)
    place.light("CRM").write_text('FAILED id=1 reason="yesterday"\n')
    place.take()

    assert seen == [""]
    place.finish("CRM")
    place.release.release_all()
    assert not place.light("CRM").exists()


def test_an_empty_light_of_the_caller_is_left_as_it_is(place: Place) -> None:
    place.drop("CRM")
    before = place.light("CRM").stat()
    place.take()

    assert place.light("CRM").stat().st_ino == before.st_ino


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo"])
def test_a_light_that_is_no_file_is_replaced_by_one(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    seen = lights_at_claim(place, "CRM", monkeypatch)
    precious = tmp_path / "precious"
    if kind == "fifo":
        os.mkfifo(place.light("CRM"))
    else:
        if kind == "link":
            precious.write_text("")
        place.light("CRM").symlink_to(precious)
    place.drop("CRM", light=False)
    place.take()

    assert seen == [""]
    place.end("CRM", JobStatus.FAILED)
    place.release.release_all()
    assert place.light("CRM").read_text().startswith("FAILED ")
    assert not place.light("CRM").is_symlink()
    assert (precious.read_text() if precious.exists() else None) == ("" if kind == "link" else None)


def test_a_light_that_is_a_directory_has_its_job_refused(place: Place) -> None:
    place.light("CRM").mkdir()
    place.drop("CRM", "job=A\n", light=False)
    place.take()

    assert place.row("CRM").status == "REJECTED"
    assert place.why_rejected("CRM") == "CRM.trafficlight is a directory: remove it\n"
    assert place.rejected("CRM").read_text() == "job=A\n"
    assert place.release.release_all()
    assert place.light("CRM").is_dir()


def test_a_light_that_became_a_directory_while_the_taker_was_dead_is_refused_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(arrivals: object) -> None:
        raise KeyboardInterrupt

    place.drop("CRM", "job=A\n")
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.spool.intake.take", die)
        with pytest.raises(KeyboardInterrupt):
            place.take()
    place.light("CRM").unlink()
    place.light("CRM").mkdir()
    place.take()

    assert place.row("CRM").reason == "CRM.trafficlight is a directory: remove it"


def test_a_touch_only_caller_sees_no_gap(place: Place) -> None:
    script = (
        "for i in 1 2 3 4 5 6 7 8 9 10; do touch J$0$i.job; "
        "while [ -e J$0$i.job ] || { [ -e J$0$i.trafficlight ] && [ ! -s J$0$i.trafficlight ]; }; do :; done; "
        "[ -e J$0$i.trafficlight ] || echo green; done"
    )
    callers = [bash(script.replace("$0", letter), place.path) for letter in "abc"]
    early: list[str] = []
    while any(caller.poll() is None for caller in callers):
        place.take()
        # Whoever went on without its job having ended has been shown a gap.
        for job in place.rows():
            if job.ended_at is None:
                if len(place.rows(f"{job.name[:2]}{int(job.name[2:]) + 1}")) > 0:
                    early.append(job.name)
                place.finish(job.name)
        place.release.release_all()

    assert early == []
    assert [output_of(caller) for caller in callers] == ["green\n" * 10] * 3
    assert len(place.rows()) == 30


def test_a_caller_of_six_lines_gets_its_green(place: Place) -> None:
    caller = bash(
        ": > N.trafficlight\n"
        "printf 'job=%s\\n' MASK_CRM > .N.tmp && mv .N.tmp N.job\n"
        "while [ -e N.trafficlight ] && [ ! -s N.trafficlight ]; do sleep 0.01; done\n"
        "[ ! -e N.trafficlight ] && echo green && exit 0\n"
        "cat N.trafficlight >&2; rm -f N.trafficlight; exit 1\n",
        place.path,
    )
    until(lambda: place.take(), "the job file")
    assert place.row("N").job == "MASK_CRM"
    assert caller.poll() is None
    place.finish("N")
    place.release.release_all()

    assert output_of(caller) == "green\n"
    assert caller.returncode == 0


def test_a_truncated_light_is_the_same_light_and_a_new_one_is_another(place: Place) -> None:
    light = place.light("CRM")
    with SpoolDirectory(place.path) as spool:
        first, was_new = ensure_light(spool, "CRM", os.geteuid())
        light.open("w").close()
        os.utime(light)
        assert (was_new, ensure_light(spool, "CRM", os.geteuid())) == (True, (first, False))
        light.unlink()
        light.touch()
        assert ensure_light(spool, "CRM", os.geteuid())[0] != first


def test_a_light_is_readable_by_everyone_whatever_our_umask_is(place: Place) -> None:
    before = os.umask(0o077)
    try:
        place.drop("bad name", light=False)
        place.take()
    finally:
        os.umask(before)

    assert place.light("bad name").stat().st_mode & 0o444 == 0o444
