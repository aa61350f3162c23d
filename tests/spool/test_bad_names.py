"""Files whose very name breaks the protocol: refused too, and never green."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.spool import intake as intake_module
from orchestrator.spool.rejected import keep_rejected
from orchestrator.store.database import StoreBusy
from tests.spool.place import Killer, Place

BAD_NAMES: dict[str, bytes] = {
    "a blank": b"my job",
    "only a blank": b" ",
    "a leading dash": b"-rf",
    "a leading plus": b"+x",
    "non-ASCII": "grüße".encode(),
    "not even UTF-8": b"caf\xe9",
    "a newline": b"a\nb",
    "an escape sequence": b"\x1b]0;pwned\x07",
    "a quote": b"a'b\"c",
    "a dollar": b"$(reboot)",
    "201 bytes": b"n" * 201,
    "as long as a light's name can be": b"n" * 242,
}


def path_of(place: Place, name: bytes, suffix: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(place.path) + b"/" + name + suffix))


@pytest.mark.parametrize("case", BAD_NAMES)
def test_a_bad_name_is_refused_and_its_light_stands_before_the_file_goes(
    place: Place, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = BAD_NAMES[case]
    job, light = path_of(place, name, b".job"), path_of(place, name, b".trafficlight")
    job.write_text("job=MASK_CRM\n")
    seen = []

    def keep(*args: object) -> None:
        seen.append((job.exists(), light.read_text()))
        keep_rejected(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(intake_module, "keep_rejected", keep)
    place.take()

    told = 'REJECTED reason="the name is not 1 to 200 of A-Za-z0-9._@+- that begin with a letter, a digit or _"\n'
    assert seen == [(True, told)]
    assert not job.exists()
    assert light.read_text() == told
    [row] = place.rows()
    assert row.status == "REJECTED"
    assert row.released_at is not None
    assert row.name.isascii()
    assert row.name.isprintable()
    [kept] = (place.path / "rejected").glob("*.job")
    assert kept.read_text() == "job=MASK_CRM\n"
    assert kept.with_suffix(".reason").read_text().startswith("the name is not")
    assert all(line.isascii() and line.isprintable() for line in caplog.messages)


@pytest.mark.parametrize("length", [243, 250, 251])
def test_a_name_too_long_for_any_light_stays_in_place(
    place: Place, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    job = path_of(place, b"n" * length, b".job")
    job.touch()
    place.take()
    place.take()

    assert job.exists()
    assert place.rows() == []
    assert len(caplog.records) == 1
    assert len(caplog.messages[0]) < 300


def test_200_bytes_are_a_good_name(place: Place) -> None:
    place.drop("n" * 200, light=False)
    place.take()

    assert place.row("n" * 200).status == "QUEUED"


def test_a_long_bad_name_can_be_refused_again_and_again(place: Place) -> None:
    name = "n" * 240
    for number in range(3):
        (place.path / f"{name}.job").write_text(f"{number}\n")
        place.take()
        assert not (place.path / f"{name}.job").exists()

    assert sorted(file.read_text() for file in (place.path / "rejected").glob("*.job")) == ["0\n", "1\n", "2\n"]


def test_a_crash_at_any_step_leaves_one_row_and_a_red_light(place: Place, killer: Killer) -> None:
    steps, survived = 0, False
    while not survived:
        name = f"bad {steps}"
        job = place.path / f"{name}.job"
        job.write_text("job=A\n")
        survived = killer.survives(steps, place.take)
        assert job.exists() or place.light(name).read_text().startswith("REJECTED "), f"killed before step {steps}"
        place.take()

        assert [row.status for row in place.rows(name)] == ["REJECTED"], f"killed before step {steps}"
        assert place.light(name).read_text().startswith("REJECTED ")
        assert place.rejected(name).read_text() == "job=A\n"
        assert not job.exists()
        steps += 1
    assert steps > 12


def test_a_bad_name_whose_light_is_a_directory_stays(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    (place.path / "a b.job").touch()
    place.light("a b").mkdir()
    place.take()

    assert (place.path / "a b.job").exists()
    assert "is a directory: remove it" in caplog.text


def test_what_cannot_be_done_is_logged_without_the_names_bytes(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intake_module, "write_light", full)
    path_of(place, b"\x1b[2J\nERROR forged \xff", b".job").touch()
    place.take()

    [line] = caplog.messages
    assert "No space left on device" in line
    assert line.isascii()
    assert line.isprintable()


def test_a_bad_name_while_the_database_is_busy_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(arrivals: object) -> None:
        raise StoreBusy("database is locked")

    place.drop("AAA")
    (place.path / "bad name.job").write_text("job=A\n")
    place.drop("zzz")
    with monkeypatch.context() as patch:
        patch.setattr(intake_module, "take", busy)
        with pytest.raises(intake_module.IntakeDelayed):
            place.take()
    assert place.rows() == []
    assert (place.path / "AAA.job").exists()
    place.take()

    assert place.statuses() == {"AAA": "QUEUED", "bad name": "REJECTED", "zzz": "QUEUED"}
    assert place.rejected("bad name").read_text() == "job=A\n"
