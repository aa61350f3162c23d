"""A flood of one user's files starves nobody else."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from orchestrator.spool import intake as intake_module
from orchestrator.spool import watch as watch_module
from orchestrator.spool.watch import SpoolWatch
from orchestrator.store.models import Queue, database
from orchestrator.store.taking import _UNFINISHED
from tests.security.users import ANNA, BERT, as_root, given
from tests.spool.place import HOST, SETTINGS, Place, until

LIMITED = SETTINGS.replace('path = "spool"', 'path = "spool"\nmax_waiting = 3')


@pytest.fixture
def limited(tmp_path: Path, database: str) -> Place:
    return Place(tmp_path, LIMITED)


def test_a_job_over_the_limit_is_refused_and_told_which_limit_it_is(limited: Place) -> None:
    for number in range(5):
        limited.drop(f"J{number}")
    limited.take()

    me = os.geteuid()
    told = f"max_waiting: uid {me} has 3 unfinished jobs in spool default, and 3 are the limit\n"
    assert list(limited.statuses().values()) == ["QUEUED"] * 3 + ["REJECTED"] * 2
    assert limited.why_rejected("J4") == told
    limited.release.release_all()
    assert limited.light("J4").read_text().startswith('REJECTED id=5 job=J4 reason="max_waiting: ')


def test_a_job_that_has_ended_makes_room_for_another(limited: Place) -> None:
    for number in range(3):
        limited.drop(f"J{number}")
    limited.take()
    limited.finish("J1")
    for name in ("NEXT", "OVER"):
        limited.drop(name)
        limited.take()

    assert [limited.row(name).status for name in ("NEXT", "OVER")] == ["QUEUED", "REJECTED"]


@as_root
def test_the_limit_is_each_owners_own(limited: Place) -> None:
    for number in range(5):
        given(limited.drop(f"B{number}"), BERT)
    given(limited.drop("A"), ANNA)
    limited.take()

    assert limited.row("A").status == "QUEUED"
    assert [job.status for job in limited.rows() if job.owner == BERT].count("QUEUED") == 3


def test_a_refused_job_counts_for_nothing(limited: Place) -> None:
    for number in range(5):
        limited.drop(f"BAD{number}", "colour=red\n")
    limited.drop("GOOD")
    limited.take()

    assert limited.row("GOOD").status == "QUEUED"


def test_the_limit_is_counted_in_an_index_of_unfinished_jobs_and_once_a_transaction(
    limited: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[object] = []
    real = _UNFINISHED.rows

    def rows(**values: object) -> object:
        counted.append(values)
        return real(**values)

    monkeypatch.setattr(_UNFINISHED, "rows", rows)
    for number in range(100):
        limited.drop(f"J{number}")
    limited.take()

    assert len(counted) == 1
    plan = database.execute_sql(f"EXPLAIN QUERY PLAN {_UNFINISHED._sql}", [HOST, "default", 0]).fetchall()
    assert [row[3].split(" (")[0] for row in plan] == ["SEARCH t1 USING COVERING INDEX queue_owner"]


@as_root
def test_files_are_taken_oldest_first_and_no_owner_goes_on_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "BATCH", 3)
    for number in range(8):
        given(place.drop(f"B{number}"), BERT)
        time.sleep(0.005)  # the kernel's clock goes by 4 ms
    for number in range(2):
        given(place.drop(f"A{number}"), ANNA)
        time.sleep(0.005)
    for number in range(8):
        os.utime(place.path / f"B{number}.job", (0, 0))  # as one would who pushes to the front
        time.sleep(0.005)
    place.take()

    names = [job.name for job in place.rows()]
    assert names == ["A0", "A1", "B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7"]
    assert [job.owner for job in place.rows()][:2] == [ANNA, ANNA]


@as_root
def test_of_two_who_drop_many_each_has_its_turn(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "BATCH", 2)
    for name in ("B0", "B1", "B2", "B3", "B4", "A0", "A1", "A2"):
        given(place.drop(name), ANNA if name[0] == "A" else BERT)
        time.sleep(0.005)
    place.take()

    assert [job.name for job in place.rows()] == ["B0", "B1", "A0", "A1", "B2", "B3", "A2", "B4"]


@as_root
def test_who_comes_during_a_flood_does_not_wait_for_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "TURN", 0.05)
    for number in range(1500):
        (place.path / f"B{number}.job").touch()
        given(place.path / f"B{number}.job", BERT)
    watch = SpoolWatch(place.settings, place.spool, HOST, threading.Event().set)
    watch.start()
    try:
        until(lambda: Queue.select().count() > 0, "the first of the flood")
        draft = place.path / ".draft"
        draft.touch()
        given(draft, ANNA).rename(place.path / "A.job")
        until(lambda: place.rows("A"), "the job that came during the flood")
        before = Queue.select().where(Queue.id < place.row("A").id).count()
        until(lambda: Queue.select().count() == 1501, "the end of the flood")
    finally:
        watch.stop()
        watch.join(5)

    assert before < 1400
