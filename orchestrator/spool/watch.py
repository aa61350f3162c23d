"""The loop around intake for one spool: woken by its observer, and by itself when no event told."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from orchestrator.doorbell import Bell
from orchestrator.settings import Settings, SpoolSettings
from orchestrator.spool.directory import SpoolDirectory, SpoolGone
from orchestrator.spool.forgotten import SETTLED, waiting_lights
from orchestrator.spool.intake import Intake, IntakeDelayed
from orchestrator.spool.observe import POLL_INTERVAL, Observer, SpoolEvents, make_observer, must_poll
from orchestrator.store.database import StoreBroken, StoreBusy, check_in_place, close_database
from orchestrator.store.releasing import names_not_released

log = logging.getLogger(__name__)

RESCAN = 30.0  # seconds between two looks through the directory that nothing asked for
TURN = 2.0  # seconds of taking after which those who came meanwhile, and the heartbeat, have their turn
RETRY = 1.0  # seconds until a spool or a database that could not serve is tried again
BEAT = 10.0  # seconds between two heartbeats; callers give up at 180 (orchestrator.bash)
FORGOTTEN_LOOK = 600.0  # seconds between two looks for lights that wait for nothing
SCHEDULE_BEAT = "schedule.beat"  # in run_dir: shows that the other half is alive
SCHEDULE_SILENT = 150.0  # seconds without it after which the heartbeat stops too; cron comes every 60


class SpoolWatch(threading.Thread):
    """Watches one spool directory and takes what arrives, until it is stopped.

    `taken()` is called after new rows were written.
    """

    def __init__(self, settings: Settings, spool: SpoolSettings, host: str, taken: Callable[[], None]) -> None:
        super().__init__(name=f"watch-{spool.name}", daemon=True)
        self._settings = settings
        self._spool = spool
        self._host = host
        self._intake = Intake(settings, spool, host)
        self._taken = taken
        self._bell = Bell()
        self._arrived: dict[str, None] = {}  # in the order of their events, each once
        self._look_due = 0.0  # on the monotonic clock
        self._beat_due = 0.0
        self._forgotten_due = 0.0
        self._forgotten: set[str] = set()  # those that the log was told of
        self._stopping = False
        self._observer: Observer | None = None
        self._observed: tuple[int, int] | None = None  # device and inode of the directory that is observed
        self._observation = 0  # counts the observers, and their ends
        self._gone = False  # the directory was, whatever bears its path now
        self._polled = False
        self._complaint = ""
        self._beat_complaint = ""

    def stop(self) -> None:
        """Ask the thread to end; it does after what it is doing now."""
        self._stopping = True
        self._bell.ring()

    def run(self) -> None:
        """Take in, until `stop`."""
        try:
            while not self._stopping:
                wait = self._turn()
                if not self._arrived:
                    self._bell.wait(wait)
        finally:
            self._stop_observing()
            close_database()

    def _turn(self) -> float:
        """Do what is due; the seconds until something is again."""
        now = time.monotonic()
        try:
            self._observe()
            check_in_place()  # before anything is taken, or callers are told that they are served
            if now >= self._beat_due:
                self._beat_due = now + (BEAT if self._beat() else RETRY)
            looked = now >= self._look_due
            if looked:
                self._look_due = now + RESCAN
                self._arrived.clear()
                count = self._intake.take_all(TURN)
                if self._intake.left:
                    self._look_due = 0.0
                self._tell_of_forgotten(now)
            else:
                arrived = list(self._arrived)
                for file in arrived:
                    self._arrived.pop(file, None)
                count = self._intake.take_files(arrived, certain=not self._polled, turn=TURN) if arrived else 0
                for file in self._intake.left if arrived else ():
                    self._arrived[file] = None
            if count:
                self._taken()
            if self._intake.look_again is not None:
                self._look_due = min(self._look_due, now + self._intake.look_again)
            if self._complaint and looked:  # else what could not be taken is still to be tried
                log.info("spool %s: all is well again", self._spool.name)
                self._complaint = ""
        except (SpoolGone, IntakeDelayed, StoreBusy, StoreBroken, OSError) as exc:
            self._complain(f"spool {self._spool.name}: {exc}; trying again every {RETRY:.0f} s")
            self._look_due = now + RETRY
            return RETRY
        except Exception as exc:  # noqa: BLE001 - nothing restarts a thread that dies: its spool would never be served
            self._complain(f"spool {self._spool.name}: {exc!r}; trying again every {RETRY:.0f} s", traceback=True)
            self._look_due = now + RETRY
            return RETRY
        return max(0.0, min(self._look_due, self._beat_due) - time.monotonic())

    def _tell_of_forgotten(self, now: float) -> None:
        """Tell, once each, of lights that no job will ever change."""
        if now < self._forgotten_due:
            return
        self._forgotten_due = now + FORGOTTEN_LOOK
        waiting = waiting_lights(self._spool.path, SETTLED)
        if waiting:
            known = names_not_released(self._host, self._spool.name)
            found = [name for name in waiting if name not in known | self._forgotten]
            if found:
                self._forgotten.update(found)
                log.error(
                    "spool %s: %d lights wait for jobs that nothing knows of (%s%s): was the database lost, or an "
                    "older one restored? See docs/operators.md",
                    self._spool.name, len(found), ", ".join(found[:3]), ", ..." if len(found) > 3 else "",
                )  # fmt: skip

    def _beat(self) -> bool:
        """Show callers that they are served; False where that is to be tried again soon. Raises SpoolGone."""
        try:
            shown = show_served(self._settings, self._spool)
            self._beat_complaint = ""
        except OSError as exc:  # no reason to take nothing: those who came wait all the same
            if str(exc) != self._beat_complaint:
                log.error("spool %s: callers cannot be shown that it is served: %s", self._spool.name, exc)
                self._beat_complaint = str(exc)
            return False
        return shown

    def _observe(self) -> None:
        """Observe the directory that now bears the spool's path; a look through it follows where it is a new one."""
        try:
            status = os.stat(self._spool.path)
        except OSError as exc:
            self._stop_observing()
            raise SpoolGone(f"{self._spool.path}: cannot be seen: {exc.strerror}: is it there, and mounted?") from exc
        gone, self._gone = self._gone, False
        if self._observed == (status.st_dev, status.st_ino) and self._observer is not None:
            if not self._observer.is_alive():
                log.error("spool %s: what observed it has ended by itself; it is observed anew", self._spool.name)
            elif not gone:
                return
        self._stop_observing()
        try:
            self._start_observing(self._spool.observer)
        except OSError as exc:  # the whole host shares inotify's limits, see inotify(7)
            log.error("spool %s: inotify cannot watch it: %s; it is polled", self._spool.name, exc)
            self._start_observing("polling")
        self._observed = (status.st_dev, status.st_ino)
        self._look_due = self._beat_due = 0.0  # a directory that took another's place has no heartbeat yet

    def _start_observing(self, setting: str) -> None:
        self._observation += 1
        gone = partial(self._note_gone, self._observation)
        observer = make_observer(SpoolEvents(self._spool.path, self._note, self._note_look, gone), setting)
        try:
            observer.start()
        except OSError:
            observer.stop()  # gives its inotify instance back
            raise
        self._observer = observer
        self._polled = must_poll(self._spool.path, setting)
        if self._polled:
            log.info("spool %s: polled every %.0f s", self._spool.name, POLL_INTERVAL)

    def _stop_observing(self) -> None:
        self._observation += 1
        if self._observer is not None:
            self._observer.stop()
            with contextlib.suppress(RuntimeError):
                self._observer.join(1)
        self._observer = None
        self._observed = None

    def _note(self, file: str) -> None:
        self._arrived[file] = None
        self._bell.ring()

    def _note_gone(self, observation: int) -> None:
        if observation == self._observation:  # not the last word of one that we have stopped
            self._gone = True
            self._note_look()

    def _note_look(self) -> None:
        self._look_due = 0.0
        self._bell.ring()

    def _complain(self, what: str, *, traceback: bool = False) -> None:
        if what != self._complaint:
            log.error("%s", what, exc_info=traceback)
            self._complaint = what


def show_served(settings: Settings, spool: SpoolSettings) -> bool:
    """Beat in a spool, so that its callers see that they are served; False where nothing schedules.

    Raises SpoolGone, or OSError where the heartbeat cannot be written.
    """
    if not schedule_is_alive(settings.run_dir):
        return False
    with SpoolDirectory(spool.path) as directory:
        directory.beat()
    return True


def schedule_is_alive(run_dir: Path) -> bool:
    """Tell whether something schedules: without it, nobody serves the spool."""
    try:
        # One from the future is no sign of life either: the clock was set back, and who lives beats anew in seconds.
        return abs(time.time() - os.stat(run_dir / SCHEDULE_BEAT).st_mtime) < SCHEDULE_SILENT
    except OSError:
        return False
