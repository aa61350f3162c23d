"""The loop around intake for one spool: woken by its observer, and by itself when no event told."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.doorbell import Bell
from orchestrator.settings import Settings, SpoolSettings
from orchestrator.spool.directory import SpoolDirectory, SpoolGone
from orchestrator.spool.intake import Intake, IntakeDelayed
from orchestrator.spool.observe import POLL_INTERVAL, Observer, SpoolEvents, make_observer, must_poll
from orchestrator.store.database import StoreBusy, close_database

log = logging.getLogger(__name__)

RESCAN = 30.0  # seconds between two looks through the directory that nothing asked for
TURN = 2.0  # seconds of taking after which those who came meanwhile, and the heartbeat, have their turn
RETRY = 1.0  # seconds until a spool or a database that could not serve is tried again
BEAT = 10.0  # seconds between two heartbeats; callers give up at 180 (orchestrator.bash)
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
        self._intake = Intake(settings, spool, host)
        self._taken = taken
        self._bell = Bell()
        self._arrived: dict[str, None] = {}  # in the order of their events, each once
        self._look_due = 0.0  # on the monotonic clock
        self._beat_due = 0.0
        self._stopping = False
        self._observer: Observer | None = None
        self._observed: tuple[int, int] | None = None  # device and inode of the directory that is observed
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
            if now >= self._beat_due:
                self._beat_due = now + (BEAT if self._beat() else RETRY)
            if now >= self._look_due:
                self._look_due = now + RESCAN
                self._arrived.clear()
                count = self._intake.take_all(TURN)
                if self._intake.left:
                    self._look_due = 0.0
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
            if self._complaint:
                log.info("spool %s: all is well again", self._spool.name)
                self._complaint = ""
        except (SpoolGone, IntakeDelayed, StoreBusy, OSError) as exc:
            self._complain(f"spool {self._spool.name}: {exc}; trying again every {RETRY:.0f} s")
            self._look_due = now + RETRY
            return RETRY
        except Exception as exc:  # noqa: BLE001 - nothing restarts a thread that dies: its spool would never be served
            self._complain(f"spool {self._spool.name}: {exc!r}; trying again every {RETRY:.0f} s", traceback=True)
            self._look_due = now + RETRY
            return RETRY
        return max(0.0, min(self._look_due, self._beat_due) - time.monotonic())

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
        if self._observed == (status.st_dev, status.st_ino) and self._observer is not None:
            if self._observer.is_alive():
                return
            log.error("spool %s: what observed it has ended by itself; it is observed anew", self._spool.name)
        self._stop_observing()
        try:
            self._start_observing(self._spool.observer)
        except OSError as exc:  # the whole host shares inotify's limits, see inotify(7)
            log.error("spool %s: inotify cannot watch it: %s; it is polled", self._spool.name, exc)
            self._start_observing("polling")
        self._observed = (status.st_dev, status.st_ino)
        self._look_due = 0.0

    def _start_observing(self, setting: str) -> None:
        observer = make_observer(SpoolEvents(self._spool.path, self._note, self._note_look), setting)
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
        if self._observer is not None:
            self._observer.stop()
            with contextlib.suppress(RuntimeError):
                self._observer.join(1)
        self._observer = None
        self._observed = None

    def _note(self, file: str) -> None:
        self._arrived[file] = None
        self._bell.ring()

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
        return time.time() - os.stat(run_dir / SCHEDULE_BEAT).st_mtime < SCHEDULE_SILENT
    except OSError:
        return False
