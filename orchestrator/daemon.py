"""The programs that run: `watch`, `schedule` and `up`. Threads, bells and signals; no steps.

The main thread only waits for signals. SIGTERM and SIGINT stop the program, in under 2 s even where a thread is held
up: whatever it was doing is gone on with at the next start. SIGHUP reads the settings anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from orchestrator.checkstatus.worker import EngineWorker
from orchestrator.confine import check_settings_owner, confine, tell_of_needless_root
from orchestrator.doorbell import Bell, Doorbell, ring
from orchestrator.engines.base import Engine, make_engine
from orchestrator.errors import OrchestratorError, SettingsError, StoreError
from orchestrator.opening import open_queue
from orchestrator.process import identify
from orchestrator.scheduler.gone import GoneEngine, gone_engines
from orchestrator.scheduler.schedule import cancel_for_gone_callers, schedule, tidy
from orchestrator.settings import Settings, load_settings
from orchestrator.spool.claim import ignore_lease_breaks
from orchestrator.spool.release import Release
from orchestrator.spool.watch import SCHEDULE_BEAT, SpoolWatch
from orchestrator.store.database import StoreBusy, after_commit, check_in_place, close_database, data_version
from orchestrator.store.engines import seed_cpus

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks whether somebody else changed the database
BEAT = 10.0  # seconds between two signs of life of the schedule program
RELEASE_LOOK = 10.0  # seconds between two looks for callers to be released that nothing asked for
RELEASE_RETRY = 5.0  # seconds until a spool that could not serve is tried again
SWITCH = 0.0005  # seconds until a thread that works lets another one on: ours hand small things to each other
STOP_PATIENCE = 1.5  # seconds that threads have to end by themselves
OPEN_PATIENCE = 120.0  # seconds that a database which somebody holds locked is waited for at the start
DOORBELL = "schedule"  # what other processes ring at


def this_host() -> str:
    """Name this host, as rows of QUEUE do."""
    return socket.gethostname()


def ring_schedule(settings: Settings) -> None:
    """Tell the schedule program, wherever it runs on this host, that there is something to do."""
    ring(settings.run_dir, DOORBELL)


class Worker(EngineWorker):
    """One engine's thread. It begins when the one that it replaces has ended: an engine has one at a time (P4)."""

    before: threading.Thread | None = None

    def run(self) -> None:
        """Start and check, until `stop`."""
        if self.before is not None:
            self.before.join()
            self.before = None  # nor is it kept in memory
        super().run()


def make_worker(engine: Engine, changed: Callable[[], None]) -> Worker:
    """Make what starts and checks the jobs of one engine in this process."""
    me = identify(os.getpid())
    if me is None:
        raise SettingsError("this process is not in /proc: is /proc mounted?")
    return Worker(engine, this_host(), me, changed)


class Schedule:
    """The steps schedule, start, check and release, each in its own threads."""

    def __init__(self, settings: Settings) -> None:
        """Make the engines. Raises SettingsError."""
        self._settings = settings
        self._host = this_host()
        self._bell = Bell()
        self._release_bell = Bell()
        self._placing = threading.Lock()
        self._stopping = False
        self._workers = {
            name: make_worker(make_engine(engine, settings), self._changed) for name, engine in settings.engines.items()
        }
        self._before: dict[str, Worker] = {}  # of the parts that this one replaced: a call may be under way
        self._gone: dict[str, Worker] = {}  # of engines that the settings no longer have; without a thread
        self._told_of_cpus: set[tuple[str, str, str]] = set()
        self._threads = [
            threading.Thread(target=self._schedule_loop, name="schedule", daemon=True),
            threading.Thread(target=self._release_loop, name="release", daemon=True),
            *self._workers.values(),
        ]

    def replace(self, before: Sequence[Part]) -> None:
        """Take the place of parts that were stopped, before the start."""
        for part in before:
            if isinstance(part, Schedule):
                self._before |= part._before | part._workers
        for name, worker in self._workers.items():
            worker.before = self._before.get(name)

    def start(self) -> None:
        """Start all threads."""
        with contextlib.suppress(OSError):  # the loop tells
            beat(self._settings)  # before `watch` asks for it, so that callers who come with the start are not warned
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask all threads to end."""
        self._stopping = True
        for worker in self._workers.values():
            worker.stop()
        self.ring()
        self._release_bell.ring()

    def threads(self) -> list[threading.Thread]:
        """Give the threads, to be waited for."""
        return self._threads

    def ring(self) -> None:
        """There are new rows to place. For any thread."""
        self._bell.ring()

    def _changed(self) -> None:
        """Give away what an engine's thread has freed, in that very thread: to wake another takes longer."""
        after_commit(self._release_bell.ring)
        if not self._placing.acquire(blocking=False):
            after_commit(self._bell.ring)
            return
        try:
            self._place()
        except BaseException:
            self._bell.ring()
            raise
        finally:
            self._placing.release()

    def _schedule_loop(self) -> None:
        seen, due, asked, seeded = -1, True, False, False
        next_look = next_callers = next_tidy = next_beat = 0.0  # on the monotonic clock
        complaint = doorbell_complaint = ""
        doorbell: Doorbell | None = None
        with contextlib.ExitStack() as held:
            while not self._stopping:
                if doorbell is None:
                    try:
                        doorbell = held.enter_context(Doorbell(self._settings.run_dir, DOORBELL))
                    except OSError as exc:  # others are heard all the same, by what they write: see below
                        doorbell_complaint = _complain("doorbell", exc, doorbell_complaint)
                now = time.monotonic()
                try:
                    if not seeded:
                        seed(self._settings)
                        seeded = True
                    if asked or now >= next_look:
                        # Somebody else may have written: the sqlite3 shell, another program, and nobody need ring.
                        next_look = now + LOOK
                        check_in_place()
                        version = data_version()
                        if version != seen:
                            seen, due = version, True
                            self._ring_all()
                    if now >= next_callers:
                        next_callers = now + LOOK
                        if cancel_for_gone_callers(self._host):
                            self._ring_all()
                    if now >= next_tidy:
                        next_tidy = now + BEAT
                        due |= tidy(self._told_of_cpus)
                        self._serve_gone()
                    if due:
                        self._schedule_once()
                        due = False  # not before: what failed is due again
                    if now >= next_beat:  # only what works shows that it lives
                        next_beat = now + BEAT
                        beat(self._settings)
                    complaint = ""
                except Exception as exc:  # noqa: BLE001 - nothing restarts a thread that dies
                    complaint = _complain("schedule", exc, complaint)
                due |= self._bell.wait(LOOK, () if doorbell is None else (doorbell.socket.fileno(),))
                asked = doorbell is not None and doorbell.answer()
        close_database()

    def _schedule_once(self) -> None:
        with self._placing:
            self._place()

    def _place(self) -> None:
        scheduled = schedule({name: worker.known() for name, worker in self._workers.items()})
        for name in scheduled.engines:
            after_commit(self._workers[name].ring)
        if scheduled.failed:
            after_commit(self._release_bell.ring)

    def _serve_gone(self) -> None:
        """Have jobs that wait on engines that the settings no longer have go back, and their callers told of an end."""
        gone = gone_engines(self._settings)
        self._before = {name: worker for name, worker in self._before.items() if worker.is_alive()}
        self._gone = {name: worker for name, worker in self._gone.items() if name in gone}
        for name, jobs in gone.items():
            if name in self._before:
                continue  # it may be starting one of them
            if name not in self._gone:
                log.warning("engine %s is not in the settings, and %d jobs are on it: put it back", name, jobs)
                self._gone[name] = make_worker(GoneEngine(name, self._settings), self._changed)
            self._gone[name].tick()

    def _ring_all(self) -> None:
        self._release_bell.ring()
        for worker in self._workers.values():
            worker.ring()

    def _release_loop(self) -> None:
        release = Release(self._settings, self._host)
        wait = 0.0
        complaint = ""
        while not self._stopping:
            self._release_bell.wait(wait)
            try:
                wait = RELEASE_LOOK if release.release_all() else RELEASE_RETRY
                complaint = ""
            except Exception as exc:  # noqa: BLE001 - nothing restarts a thread that dies
                complaint = _complain("release", exc, complaint)
                wait = LOOK
        close_database()


def _complain(step: str, exc: Exception, before: str) -> str:
    """Log once what keeps a step from working; what is to be compared with the next time."""
    what = f"the database cannot serve: {exc}" if isinstance(exc, StoreBusy) else f"{type(exc).__name__}: {exc}"
    if what != before:
        log.error("%s: cannot work now: %s; trying again", step, what)
    return what


class Watch:
    """Step intake, one thread a spool."""

    def __init__(self, settings: Settings, taken: Callable[[], None]) -> None:
        self._watches = [SpoolWatch(settings, spool, this_host(), taken) for spool in settings.spools.values()]

    def replace(self, before: Sequence[Part]) -> None:
        """Take the place of parts that were stopped: nothing of theirs is left."""

    def start(self) -> None:
        """Start all threads."""
        for watch in self._watches:
            watch.start()

    def stop(self) -> None:
        """Ask all threads to end."""
        for watch in self._watches:
            watch.stop()

    def threads(self) -> list[threading.Thread]:
        """Give the threads, to be waited for."""
        return list(self._watches)


Part = Schedule | Watch


def watch_parts(settings: Settings) -> list[Part]:
    """Give what `orchestrator watch` runs."""
    return [Watch(settings, lambda: ring_schedule(settings))]


def schedule_parts(settings: Settings) -> list[Part]:
    """Give what `orchestrator schedule` runs."""
    return [Schedule(settings)]


def up_parts(settings: Settings) -> list[Part]:
    """Give what `orchestrator up` runs: all, in one process."""
    scheduling = Schedule(settings)
    return [scheduling, Watch(settings, scheduling.ring)]


def warn_of_another(run_dir: Path, kind: str) -> None:
    """Warn where a program of the same kind runs already, by mistake; it does no harm (docs/architecture.md)."""
    try:
        fd = os.open(run_dir / f"{kind}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends: nobody closes it
    except BlockingIOError:
        other = os.read(fd, 20).decode("ascii", errors="replace").strip()
        log.warning("another `%s` runs already, pid %s: two do no harm, one is enough", kind, other)
        os.close(fd)
    except OSError as exc:
        log.warning("whether another `%s` runs cannot be told: %s", kind, exc)
    else:
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())


def run_daemon(settings: Settings, make_parts: Callable[[Settings], list[Part]]) -> None:
    """Run until SIGTERM or SIGINT. Raises SettingsError or StoreError where it cannot begin."""
    confine()
    check_settings_owner(settings)
    tell_of_needless_root(settings)
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # threads inherit it; only sigwait below takes them
    ignore_lease_breaks()
    sys.setswitchinterval(SWITCH)
    threading.excepthook = _tell_of_dead_thread
    gc.freeze()  # what is here now stays; and what comes later seldom goes in circles
    gc.set_threshold(20_000, 20, 50)
    open_patiently(settings, signals)
    parts = make_parts(settings)
    for part in parts:
        warn_of_another(settings.run_dir, "schedule" if isinstance(part, Schedule) else "watch")
    while True:
        for part in parts:
            part.start()
        log.info("running, pid %d, settings %s", os.getpid(), settings.file)
        while signal.sigwait(signals) == signal.SIGHUP:
            try:
                new_settings = load_settings(settings.file)
                check_settings_owner(new_settings)
                new_parts = make_parts(new_settings)
            except Exception as exc:  # noqa: BLE001 - whatever is wrong with a file, those who wait are served on
                told = exc if isinstance(exc, OrchestratorError) else repr(exc)
                log.error("settings are not reread, the old ones stay: %s", told)
                continue
            settings = new_settings
            break
        else:
            stop(parts, STOP_PATIENCE)
            log.info("stopped")
            logging.shutdown()
            os._exit(0)  # also past a thread that waits for an engine
        stop(parts, None)
        for part in new_parts:
            part.replace(parts)
        parts = new_parts
        log.info("settings reread")


def stop(parts: Sequence[Part], patience: float | None) -> None:
    """Stop all threads, and wait for them: for so many seconds, or for all but those that wait for an engine."""
    for part in parts:
        part.stop()
    deadline = None if patience is None else time.monotonic() + patience
    for part in parts:
        for thread in part.threads():
            if thread.ident is None or (deadline is None and isinstance(thread, Worker)):
                continue
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))


def _tell_of_dead_thread(dead: threading.ExceptHookArgs) -> None:
    """Tell in one line of a thread that ended by a fault: watchdog's, which are started anew. Ours do not end."""
    log.error("thread %s has ended: %r", dead.thread.name if dead.thread else "?", dead.exc_value)


def open_patiently(settings: Settings, signals: Collection[signal.Signals] = ()) -> None:
    """Open the database; one that a stranger holds locked is waited for. Raises StoreError.

    One of `signals` ends the program meanwhile.
    """
    deadline = time.monotonic() + OPEN_PATIENCE
    complaint = ""
    while True:
        try:
            open_queue(settings)
        except StoreError as exc:
            if not isinstance(exc.__cause__, StoreBusy) or "locked" not in str(exc) or time.monotonic() > deadline:
                raise
            if str(exc) != complaint:
                log.error("%s; trying again for %.0f s", exc, OPEN_PATIENCE)
                complaint = str(exc)
            if signal.sigtimedwait(signals, 0) is not None:
                log.info("stopped")
                os._exit(0)
        else:
            return


def seed(settings: Settings) -> None:
    """Make the CPUs that the settings name, where ENGINES has none of the engine."""
    for engine in settings.engines.values():
        if engine.cpus and seed_cpus(engine.name, engine.cpus):
            log.info("engine %s: %d CPUs made", engine.name, engine.cpus)


def beat(settings: Settings) -> None:
    """Show `watch` that something schedules."""
    path = settings.run_dir / SCHEDULE_BEAT
    path.touch()
