"""Which waiting job goes on which free CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.base import Knows, Lookup
from orchestrator.job import Job
from orchestrator.scheduler.choose import Choice, EngineView, choose
from orchestrator.state import EngineState

from .make import a_job

YES, NO, ASK = Lookup(Knows.YES), Lookup(Knows.NO, "no such job"), Lookup(Knows.ASK, "no such job")


def view(name: str = "engine1", free: int = 1, **fields: Any) -> EngineView:
    known: dict[str, Any] = {"state": EngineState.UP, "cpus": free, "jobs": 0, "lookup": lambda _: YES}
    return EngineView(name=name, free=tuple(f"CPU{number + 1}" for number in range(free)), **known | fields)


def job(number: int = 1, **fields: Any) -> Job:
    return a_job(id=number, name=f"J{number}", **fields)


def told(choice: Choice) -> list[tuple[int, str, str]]:
    return [(each.id, engine, cpu) for each, (engine, cpu) in choice.placings]


def test_jobs_are_served_in_the_order_in_which_they_come() -> None:
    jobs = [job(3), job(1), job(2)]
    assert told(choose(jobs, [view(free=2)])) == [(3, "engine1", "CPU1"), (1, "engine1", "CPU2")]


def test_a_job_that_cannot_be_placed_holds_up_none_behind_it() -> None:
    jobs = [job(1, engines="engine2"), job(2)]
    assert told(choose(jobs, [view(), view("engine2", free=0, cpus=1, jobs=1)])) == [(2, "engine1", "CPU1")]


def test_a_job_goes_only_where_it_may() -> None:
    engines = [view(), view("engine2"), view("engine3")]
    assert told(choose([job(engines="engine2,engine3")], engines)) == [(1, "engine2", "CPU1")]


def test_the_least_loaded_engine_comes_first_and_the_load_grows_with_each_placing() -> None:
    engines = [view("a", free=2, cpus=4, jobs=2), view("b", free=2)]
    assert [engine for _, engine, _ in told(choose(map(job, range(4)), engines))] == ["b", "a", "b", "a"]


def test_an_engine_that_queues_by_itself_comes_last_however_empty_it_is() -> None:
    engines = [view("a", free=4, queueing=True), view("b", free=1, cpus=4, jobs=3)]
    assert [engine for _, engine, _ in told(choose(map(job, range(3)), engines))] == ["b", "a", "a"]


@pytest.mark.parametrize("state", [EngineState.DOWN, EngineState.UNKNOWN])
def test_an_engine_that_is_not_up_gets_nothing_and_ends_no_jobs(state: EngineState) -> None:
    choice = choose([job()], [view("a", state=state), view("b", lookup=lambda _: NO)])
    assert (choice.placings, choice.unknown, choice.ask) == ([], [], set())


def test_free_rows_are_not_room_while_jobs_run_whose_rows_were_deleted() -> None:
    assert len(choose(map(job, range(9)), [view(free=3, cpus=3, jobs=2)]).placings) == 1
    assert choose([job()], [view(free=1, cpus=1, jobs=3)]).placings == []


def test_an_engine_without_cpus_gets_nothing() -> None:
    assert choose([job()], [view(free=0), view("b")]).placings[0][1] == ("b", "CPU1")


def test_a_retried_job_goes_to_another_engine() -> None:
    engines = [view("a", free=8), view("b", free=1, cpus=8, jobs=7)]
    assert told(choose([job(tried="a")], engines)) == [(1, "b", "CPU1")]


def test_a_retried_job_waits_for_another_engine_that_is_full() -> None:
    engines = [view("a", free=8), view("b", free=0, cpus=8, jobs=8)]
    assert told(choose([job(tried="a")], engines)) == []


def test_a_retried_job_goes_where_it_failed_if_there_is_no_elsewhere() -> None:
    assert told(choose([job(tried="a")], [view("a")])) == [(1, "a", "CPU1")]
    assert told(choose([job(tried="a")], [view("a"), view("b", lookup=lambda _: NO)])) == [(1, "a", "CPU1")]
    assert told(choose([job(tried="a,b")], [view("a"), view("b")])) == [(1, "a", "CPU1")]


def test_a_retried_job_does_not_wait_for_an_engine_that_has_no_cpus_or_is_drained() -> None:
    for other in (view("b", free=0), view("b", free=1, draining=True)):
        assert told(choose([job(tried="a")], [view("a"), other])) == [(1, "a", "CPU1")]


def test_a_draining_engine_gets_nothing_and_still_says_what_it_has() -> None:
    drained = view("a", free=8, draining=True)
    assert told(choose([job()], [drained, view("b")])) == [(1, "b", "CPU1")]
    choice = choose([job()], [drained, view("b", lookup=lambda _: NO)])  # only the drained one has it: it waits
    assert (choice.placings, choice.unknown) == ([], [])
    choice = choose([job()], [view("a", draining=True, lookup=lambda _: NO), view("b", lookup=lambda _: NO)])
    assert [each.id for each, _ in choice.unknown] == [1]
    choice = choose([job()], [view("a", draining=True, lookup=lambda _: ASK), view("b", lookup=lambda _: NO)])
    assert (choice.ask, choice.unknown) == ({"a"}, [])
    choice = choose([job()], [view("a", draining=True, state=EngineState.DOWN), view("b", lookup=lambda _: NO)])
    assert choice.unknown == []


def test_a_job_that_no_allowed_engine_knows_is_unknown_and_told_why() -> None:
    engines = [view("a", lookup=lambda _: NO), view("b", lookup=lambda _: NO), view("c")]
    choice = choose([job(engines="a,b")], engines)
    assert [(each.id, why) for each, why in choice.unknown] == [
        (1, "no engine knows job MASK_CRM; asked: a: no such job; b: no such job")
    ]
    assert choice.placings == []


def test_a_job_for_engines_that_are_not_in_the_settings_is_unknown() -> None:
    assert [why for _, why in choose([job(engines="gone")], [view("a")]).unknown] == ["no engine may run job MASK_CRM"]


def test_a_job_is_not_unknown_while_one_of_its_engines_has_it() -> None:
    engines = [view("a", free=0, cpus=1, jobs=1), view("b", lookup=lambda _: NO)]
    assert choose([job()], engines).unknown == []


def test_an_engine_whose_knowledge_is_older_than_the_job_is_asked_first() -> None:
    choice = choose([job()], [view("a", lookup=lambda _: ASK), view("b", lookup=lambda _: NO)])
    assert (choice.ask, choice.unknown, choice.placings) == ({"a"}, [], [])


def test_a_job_is_placed_where_it_is_known_without_waiting_for_an_answer() -> None:
    choice = choose([job()], [view("a", lookup=lambda _: ASK), view("b")])
    assert (choice.ask, told(choice)) == ({"a"}, [(1, "b", "CPU1")])


def test_no_job_is_read_once_there_is_no_room() -> None:
    read: list[int] = []

    def jobs() -> Any:
        for number in range(100):
            read.append(number)
            yield job(number)

    choose(jobs(), [view(free=2)])
    assert len(read) == 3


STATES = st.sampled_from([EngineState.UP, EngineState.UP, EngineState.DOWN, EngineState.UNKNOWN])
NAMES = ["a", "b", "c"]


def looking(answers: dict[int, Lookup]) -> Callable[[Job], Lookup]:
    return lambda each: answers[each.id]


@st.composite
def pools(draw: st.DrawFn) -> list[EngineView]:
    engines = []
    for name in NAMES[: draw(st.integers(0, 3))]:
        free = draw(st.integers(0, 4))
        answers = {number: draw(st.sampled_from([YES, YES, NO, ASK])) for number in range(8)}
        engines.append(
            view(
                name, free, cpus=free + draw(st.integers(0, 3)), jobs=draw(st.integers(0, 6)), state=draw(STATES),
                queueing=draw(st.booleans()), draining=draw(st.sampled_from([False, False, True])),
                lookup=looking(answers),
            )
        )  # fmt: skip
    return engines


WORDS = st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(",".join)
JOBS = st.lists(st.tuples(WORDS, WORDS), max_size=8).map(
    lambda rows: [job(number, engines=row[0], tried=row[1]) for number, row in enumerate(rows)]
)


@given(JOBS, pools())
def test_whatever_waits_and_is_free_the_promises_hold(jobs: list[Job], engines: list[EngineView]) -> None:
    choice = choose(jobs, engines)
    pool = {engine.name: engine for engine in engines}
    used = [cpu for _, cpu in choice.placings]
    ids = [each.id for each, _ in choice.placings] + [each.id for each, _ in choice.unknown]
    assert len(set(used)) == len(used)
    assert len(set(ids)) == len(ids)
    for name, count in Counter(engine for engine, _ in used).items():
        assert count + pool[name].jobs <= pool[name].cpus
    for each, (name, cpu) in choice.placings:
        assert not each.allowed_engines or name in each.allowed_engines
        assert cpu in pool[name].free
        assert pool[name].state is EngineState.UP
        assert not pool[name].draining
        assert pool[name].lookup(each).knows is Knows.YES
    for each, _ in choice.unknown:
        may = [engine for engine in engines if not each.allowed_engines or engine.name in each.allowed_engines]
        assert all(engine.state is EngineState.UP and engine.lookup(each).knows is Knows.NO for engine in may)
