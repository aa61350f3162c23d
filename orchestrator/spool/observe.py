"""Observers of spool directories: watchdog's, asked for just what a spool needs.

On a local file system one thread of watchdog's reads inotify and tells at once. watchdog's own observer (7.1.0, read in
its source) has three, with two queues between them, holds every event behind an unmatched IN_MOVED_FROM back for 0.5 s,
and tells nobody of an overflow of the kernel's queue. Where inotify cannot see, watchdog's observer polls.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor
from watchdog.observers.polling import PollingObserver

from orchestrator.job import CANCEL_SUFFIX, JOB_SUFFIX
from orchestrator.spool.filesystem import is_shared

POLL_INTERVAL = 1.0  # seconds between two looks where inotify cannot see

_REQUESTS = (JOB_SUFFIX, CANCEL_SUFFIX)
# What makes a file whole in a spool: closed by its writer, or moved in. And what takes the spool itself away.
_MASK = Mask(
    InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)


class Observer(Protocol):
    """Tells of what arrives in a spool, from a thread of its own."""

    def start(self) -> None:
        """Begin to tell. Raises OSError where it cannot watch."""

    def stop(self) -> None:
        """Ask the thread to end."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for that."""

    def is_alive(self) -> bool:
        """Tell whether it still tells."""


class SpoolEvents(FileSystemEventHandler):
    """Hands on the names of files that may be requests.

    `arrived(name)` for each; `look()` where only a look through the directory can tell; `gone()` where the directory
    was moved or removed: one that is made in its place may even have its inode.
    """

    def __init__(
        self, path: Path, arrived: Callable[[str], None], look: Callable[[], None], gone: Callable[[], None]
    ) -> None:
        self.path = path
        self.look = look
        self.gone = gone
        self._arrived = arrived

    def tell(self, name: str) -> None:
        """Take the name of a file that was seen."""
        if not name.startswith(".") and name.endswith(_REQUESTS):
            self._arrived(name)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Take one event of an observer that polls; called by its thread."""
        path = os.fsdecode(event.dest_path or event.src_path)
        if path == str(self.path):
            self.look()
        else:
            self.tell(os.path.basename(path))

    def on_event(self, event: InotifyEvent) -> None:
        """Take one event of inotify."""
        if event.name:
            self.tell(os.fsdecode(event.name))
        else:
            self.gone()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Take it that nothing is watched any more."""
        self.look()

    def on_queue_overflow(self) -> None:
        """Take it that the kernel has dropped events."""
        self.look()


class SpoolObserver(InotifyFD):
    """Tells of one spool by inotify."""

    def __init__(self, events: SpoolEvents) -> None:
        super().__init__()
        self._events = events

    def start(self) -> None:
        """Begin to watch, and to tell. Raises OSError where inotify's limits are reached (inotify(7))."""
        super().start()  # first: only the thread that runs gives back what __init__ took
        self.add_callback(os.fsencode(self._events.path), _MASK, self._events, CallbackId(id(self._events)))


def must_poll(path: Path, setting: str) -> bool:
    """Tell whether a spool is to be polled: by setting (auto, inotify, polling), or as its file system demands."""
    return setting == "polling" or (setting == "auto" and is_shared(path))


def make_observer(events: SpoolEvents, setting: str) -> Observer:
    """Make the observer that suits the spool; it is not started yet. Raises OSError."""
    if not must_poll(events.path, setting):
        return SpoolObserver(events)
    observer = PollingObserver(timeout=POLL_INTERVAL)
    observer.schedule(events, str(events.path))
    return observer
