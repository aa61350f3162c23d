"""The engines: their login, version, jobs, clock and free CPUs. All are asked at once, none for longer than allowed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator.doctor.finding import Finding, fail, guarded, listed, ok, side_by_side, user, warn
from orchestrator.doctor.settings import check_password
from orchestrator.engines.base import Engine, Knows, make_engine
from orchestrator.engines.command import CommandEngine
from orchestrator.errors import EngineDown, LoginRefused, SettingsError
from orchestrator.job import Job, ascii_line
from orchestrator.settings import EngineSettings, Settings
from orchestrator.state import EngineState
from orchestrator.store.looking import Rows
from orchestrator.store.placing import Capacity

SKEW = 60.0  # seconds that two clocks may be apart before it is worth a line
_HERE = ("127.", "localhost", "::1")


@dataclass(frozen=True)
class Answer:
    """What one engine told: what was found of it, and which of the jobs that wait it has."""

    findings: list[Finding]
    has: frozenset[int] = frozenset()


def ask_engines(settings: Settings, rows: Rows | None, seconds: float) -> dict[str, Answer]:
    """Ask all engines side by side; one that does not answer within `seconds` FAILs, and holds up no other."""
    waiting = [] if rows is None else [job for job in rows.active if job.status == "QUEUED"]

    def asker(engine: EngineSettings) -> Answer:
        has: set[int] = set()
        subject = f"engine {engine.name}"
        return Answer(guarded(subject, lambda: _ask(engine, settings, rows, waiting, has)), frozenset(has))

    answers = side_by_side(
        {name: lambda engine=engine: asker(engine) for name, engine in settings.engines.items()},  # type: ignore[misc]
        seconds,
    )
    for name in settings.engines:
        if name not in answers:
            found = f"no answer within {seconds:g} s"
            advice = "does the engine hang? Its own log; `orchestrator engine drain`, and restart it"
            answers[name] = Answer([fail(f"engine {name}", found, advice)])
    return {name: answers[name] for name in settings.engines}


def _ask(
    engine: EngineSettings, settings: Settings, rows: Rows | None, waiting: Sequence[Job], has: set[int]
) -> Iterator[Finding]:
    subject = f"engine {engine.name}"
    try:
        made = make_engine(engine, settings)
    except SettingsError as exc:
        yield fail(subject, str(exc), "correct the settings")
        return
    try:
        bad = [*check_password(subject, engine.options.get("password")), *_openness(subject, engine)]
        if rows is not None:
            bad += _as_known(subject, engine, rows)
        yield from bad
        try:
            found = _command_engine(settings) if isinstance(made, CommandEngine) else _described(made, engine)
        except EngineDown as exc:
            yield _down(subject, exc, rows, engine)
            return
        try:
            made.refresh()
        except EngineDown as exc:
            yield warn(subject, f"not all of its jobs can be listed: {exc}", "the rights of its user; its own log")
        has |= {job.id for job in waiting if made.lookup(job).knows is Knows.YES}
        jobs = made.known_jobs()
        facts = [found, *([] if jobs is None else [f"{jobs} jobs"]), *_cpus(engine, rows)]
        skew = made.clock_skew()
        if skew is not None and abs(skew) > SKEW:
            told = f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"
            advice = "set both by NTP; nothing depends on it but the times in records, when they are compared"
            yield warn(subject, told, advice)
        elif skew is not None:
            facts.append("clocks agree")
        yield ok(subject, ", ".join(facts))
    finally:
        made.close()


def _described(made: Engine, engine: EngineSettings) -> str:
    described = made.describe()
    login = engine.options.get("username")
    return described if login is None else f"{described}, login of {ascii_line(login)}"


def _command_engine(settings: Settings) -> str:
    """See that a command engine could work; it is not asked, since that would make its folders."""
    for folder in (settings.run_dir / "commands", settings.log_dir / "jobs"):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK) and folder.stat().st_uid == os.geteuid():
            raise EngineDown(f"{folder}: {user(os.geteuid())} cannot write there")
    return "commands on this host"


def _openness(subject: str, engine: EngineSettings) -> Iterator[Finding]:
    if engine.options.get("verify") is False:
        found = "verify = false: anybody on the way can read the password"
        yield warn(subject, found, 'verify = "/path/ca.pem"')
    url = engine.options.get("url")
    if isinstance(url, str) and url.startswith("http:") and not (urlsplit(url).hostname or "").startswith(_HERE):
        yield warn(subject, f"{url}: the password goes over the network as it is", "use https")


def _down(subject: str, exc: EngineDown, rows: Rows | None, engine: EngineSettings) -> Finding:
    health = None if rows is None else rows.health.get(engine.name)
    if "environment variable" in str(exc) and health is not None and health.state is not EngineState.DOWN:
        # The programs have another environment than whoever looks, and they are in.
        found = f"{exc} here, so the login was not tried; the programs found it {health.state}"
        return warn(subject, found, "set it here too, to have the engine asked")
    if isinstance(exc, LoginRefused):
        return fail(subject, str(exc), "the username and the password in the settings; is the account locked?")
    return fail(subject, str(exc), "see docs/operators.md, An engine is DOWN")


def _as_known(subject: str, engine: EngineSettings, rows: Rows) -> Iterator[Finding]:
    """Tell what the database says of an engine that keeps it from getting jobs."""
    name = engine.name
    health = rows.health.get(name)
    if health is not None and health.state is EngineState.DRAINING:
        yield warn(subject, "is DRAINING: it gets no more jobs", f"orchestrator engine resume {name}, when it may")
    elif health is not None and health.state is EngineState.DOWN:
        found = f"the programs find it DOWN since {health.since}: {health.reason}"
        yield warn(subject, found, "if it answers now, they find out within 30 s")
    elif health is not None and health.reason:
        yield warn(subject, f"the programs say: {health.reason}", "see docs/operators.md, A caller hangs")
    if rows.capacities.get(name, Capacity()).cpus == 0:
        if engine.cpus:
            yield warn(subject, "ENGINES has no CPU of it", "the next start of a program makes them")
        else:
            yield warn(subject, "ENGINES has no CPU of it: it gets no jobs", f"orchestrator engine add {name}")


def _cpus(engine: EngineSettings, rows: Rows | None) -> list[str]:
    if rows is None:
        return []
    capacity = rows.capacities.get(engine.name, Capacity())
    return [f"{len(capacity.free)} of {capacity.cpus} CPUs FREE"]


def check_cpus(settings: Settings, rows: Rows) -> Iterator[Finding]:
    """Find rows of ENGINES that do not serve."""
    for engine, cpu, status in rows.stray:
        found = f"{cpu} has status {ascii_line(repr(status))}, which is never used"
        yield warn(f"engine {ascii_line(engine)}", found, "make it FREE with the sqlite3 shell, or remove the row")
    for engine, cpu, job in rows.deserted:
        found = f"{cpu} is held by job {job}, which has no row in QUEUE"
        yield warn(f"engine {ascii_line(engine)}", found, "`orchestrator schedule` frees it within 10 s: does it run?")
    unknown = sorted(set(rows.capacities) - set(settings.engines))
    if unknown:
        found = f"ENGINES has {listed(map(ascii_line, unknown))}, which the settings do not have: they get nothing"
        yield warn("engines", found, "add them to the settings, or remove their rows")
