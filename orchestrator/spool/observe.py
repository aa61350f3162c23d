"""Observers of spool directories: watchdog's, asked for just what a spool needs.

Three things differ from watchdog as it comes (7.1.0, read in its source): no IN_MOVED_FROM is asked for, because an
unmatched one holds every later event back for 0.5 s; an overflow of the kernel's queue is told on, so that the
directory is looked through; and a spool on a file system that inotify cannot see is polled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirDeletedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import DEFAULT_OBSERVER_TIMEOUT, BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD, Mask
from watchdog.observers.polling import PollingObserver

from orchestrator.job import CANCEL_SUFFIX, JOB_SUFFIX
from orchestrator.spool.filesystem import is_shared

# What is handed on; polling knows no FileClosedEvent, but sees a file again when it has grown.
EVENTS = (FileClosedEvent, FileCreatedEvent, FileModifiedEvent, FileMovedEvent, DirDeletedEvent)

POLL_INTERVAL = 1.0  # seconds between two looks where inotify cannot see

_REQUESTS = (JOB_SUFFIX.encode(), CANCEL_SUFFIX.encode())


class _SpoolWatchGroup(InotifyWatchGroup):
    """Lets pass only what may be a request: a caller makes three files for each."""

    overflowed: Callable[[], None]

    def on_event(self, event: InotifyEvent) -> None:
        if not event.name or event.name.endswith(_REQUESTS):
            super().on_event(event)

    def on_queue_overflow(self) -> None:
        super().on_queue_overflow()
        self.overflowed()


class SpoolEmitter(InotifyEmitter):
    """Emits what makes a file whole in a spool: closed by its writer, or moved in."""

    def get_event_mask_from_filter(self) -> Mask:
        """Give the kernel's mask of events."""
        return Mask(
            InotifyConstants.IN_CLOSE_WRITE
            | InotifyConstants.IN_MOVED_TO
            | InotifyConstants.IN_DELETE_SELF
            | InotifyConstants.IN_MOVE_SELF
        )

    def on_thread_start(self) -> None:
        """Begin to watch; an overflow emits an event of the directory itself."""
        self._inotify = _SpoolWatchGroup(
            self._inotify_fd, os.fsencode(self.watch.path), event_mask=self.get_event_mask_from_filter()
        )
        self._inotify.overflowed = lambda: self.queue_event(FileClosedEvent(self.watch.path))


class SpoolObserver(BaseObserver):
    """An inotify observer for spools."""

    def __init__(self, *, timeout: float = DEFAULT_OBSERVER_TIMEOUT) -> None:
        self._inotify_fd = InotifyFD()
        self._inotify_fd.start()
        super().__init__(SpoolEmitter, timeout=timeout, inotify_fd=self._inotify_fd)

    def on_thread_stop(self) -> None:
        """Stop watching."""
        super().on_thread_stop()
        self._inotify_fd.stop()
        self._inotify_fd.join()


class SpoolEvents(FileSystemEventHandler):
    """Hands on the names of files that may be requests.

    `arrived(name)` for each; `look()` where only a look through the directory can tell.
    """

    def __init__(self, path: Path, arrived: Callable[[str], None], look: Callable[[], None]) -> None:
        self._path = str(path)
        self._arrived = arrived
        self._look = look

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Take one event; called by the observer's thread."""
        path = os.fsdecode(event.dest_path or event.src_path)
        if path == self._path:  # gone, or events were lost
            self._look()
            return
        name = os.path.basename(path)
        if not name.startswith(".") and name.endswith((JOB_SUFFIX, CANCEL_SUFFIX)):
            self._arrived(name)


def must_poll(path: Path, setting: str) -> bool:
    """Tell whether a spool is to be polled: by setting (auto, inotify, polling), or as its file system demands."""
    return setting == "polling" or (setting == "auto" and is_shared(path))


def make_observer(path: Path, setting: str) -> BaseObserver:
    """Make the observer that suits the spool at `path`; it is not started yet."""
    observer = PollingObserver(timeout=POLL_INTERVAL) if must_poll(path, setting) else SpoolObserver()
    observer.daemon = True
    return observer
