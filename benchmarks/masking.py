"""Masking jobs through ten simulated engines: how many a second, and how often the engines are asked."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.place import place, wait_until
from benchmarks.process import cpu_seconds, tree
from benchmarks.row import Row
from benchmarks.simulated import JOB, SimulatedEngine, simulated_engines

ENGINES = 10
JOBS = 2_000
RUNNING = 1_000
POLL = 0.5  # seconds
POLLS = 12  # that are looked at
_KEPT = 10_000  # requests that a simulated engine remembers


def masking_throughput() -> Iterator[Row]:
    """Jobs of 50 ms, all dropped at once, through 10 engines of 10 CPUs each."""
    with simulated_engines(ENGINES, 10, 0.05) as engines, place() as here:
        here.add_masking_engines([engine.url for engine in engines], cpus=10, poll=POLL)
        with here.running("watch", "schedule"):
            began = time.monotonic()
            for number in range(JOBS):
                here.drop(f"M{number}", JOB)
            wait_until(
                lambda: not any(name.endswith((".job", ".trafficlight")) for name in os.listdir(here.spool)),
                f"{JOBS} masking jobs have ended",
                pause=0.05,
            )
            rate = JOBS / (time.monotonic() - began)
        if sum(len(engine.executions()) for engine in engines) != JOBS:
            raise SystemExit("the engines ran another number of jobs than were dropped")
    yield Row(
        f"masking jobs a second, {ENGINES} engines, 100 CPUs, jobs of 50 ms",
        f"{rate:.0f}",
        goal="≥ 300",
        met=rate >= 300,
    )


def requests() -> Iterator[Row]:
    """What 10 engines are asked while 1,000 jobs run on them."""
    asked = asked_of(ENGINES, RUNNING // ENGINES)
    yield Row(
        f"requests an engine and poll, {RUNNING:,} running jobs on {ENGINES} engines, mean of {asked.polls} polls",
        f"{asked.each:.2f}",
        f"at most {asked.most:.2f} of one engine",
        goal="≤ 3",
        met=asked.most <= 3,
    )


@dataclass(frozen=True)
class Asked:
    """What engines were asked while jobs ran on them, and what that took."""

    polls: int  # of each engine, on average
    each: float  # requests an engine and poll
    most: float  # of the engine that was asked most
    a_second: float  # requests, of all engines together
    cpu: float  # of `schedule`, as a part of one core


def asked_of(count: int, cpus: int) -> Asked:
    """Fill so many engines with jobs that do not end, and look on for some polls."""
    with simulated_engines(count, cpus, 3600.0) as engines, place() as here:
        here.add_masking_engines([engine.url for engine in engines], cpus=cpus, poll=POLL)
        with here.running("watch", "schedule") as [_, schedule]:
            for number in range(count * cpus):
                here.drop(f"M{number}", JOB)
            here.wait_for_jobs("RUNNING", count * cpus)
            time.sleep(POLL * 10 + 1)  # younger jobs are looked at more often
            before = [len(_all_requests(engine)) for engine in engines]
            busy, began = cpu_seconds(tree(schedule.pid)), time.monotonic()
            time.sleep(POLL * POLLS)
            busy, took = cpu_seconds(tree(schedule.pid)) - busy, time.monotonic() - began
            new = [_all_requests(engine)[start:] for engine, start in zip(engines, before, strict=True)]
    polls = [_polls(each) for each in new]
    parts = [len(each) / number for each, number in zip(new, polls, strict=True)]
    total = sum(map(len, new))
    return Asked(round(sum(polls) / count), total / sum(polls), max(parts), total / took, busy / took)


def _all_requests(engine: SimulatedEngine) -> list[str]:
    asked = engine.requests()
    if len(asked) >= _KEPT:
        raise SystemExit("an engine was asked more often than it remembers: nothing can be counted")
    return asked


def _polls(asked: Sequence[str]) -> int:
    """Count the polls: each begins with the first page of what runs, and none asks for it twice."""
    first_pages = Counter(request for request in asked if "RUNNING" in request and "page_number=1" in request)
    if not first_pages:
        raise SystemExit(f"an engine was not polled at all; it was asked: {sorted(set(asked))[:5]}")
    return sum(first_pages.values())
