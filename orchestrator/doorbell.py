"""Wake-ups between threads and processes. A ring is a hint and may be lost; the database carries the facts."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Self

_FOLDER = "doorbells"


class Bell:
    """Wakes one waiting thread of this process. Rings that come before the wait are kept, as one."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        """Wake the waiter. May be called from any thread."""
        with contextlib.suppress(OSError):  # a hint, for which nobody's work is to end
            os.eventfd_write(self._fd, 1)

    def wait(self, timeout: float | None, also: Iterable[int] = ()) -> bool:
        """Sleep until a ring, until one of the file descriptors `also` is readable, or for `timeout` seconds.

        Tells whether it was this bell that rang.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        for fd in also:
            poll.register(fd, select.POLLIN)
        poll.poll(None if timeout is None else max(0, timeout) * 1000)
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return False
        return True

    def __del__(self) -> None:
        os.close(self._fd)  # not before: whoever holds the bell may ring it


class Doorbell:
    """The socket at which one daemon can be woken by other processes of this host.

    Each daemon has its own, named by its pid, so that two of a kind do not steal each other's rings.
    """

    def __init__(self, run_dir: Path, program: str) -> None:
        """Hang it up. Raises OSError where that cannot be."""
        folder = run_dir / _FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = f"{program}.{os.getpid()}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._folder)
            self.socket.bind(_address(self._folder, self._name))
        except OSError:
            self.socket.close()
            os.close(self._folder)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)
        os.close(self._folder)

    def answer(self) -> bool:
        """Take in all rings so far; whether there was one."""
        rung = False
        with contextlib.suppress(BlockingIOError):
            while self.socket.recv(1):
                rung = True
        return rung


def ring(run_dir: Path, program: str) -> None:
    """Ring at every daemon of this kind. Nobody there, or no room: that is fine, it looks by itself soon."""
    try:
        folder = os.open(run_dir / _FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
            for name in os.listdir(folder):
                if not name.startswith(f"{program}."):
                    continue
                try:
                    out.sendto(b"!", _address(folder, name))
                except ConnectionRefusedError:  # its daemon was killed
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=folder)
                except OSError:
                    pass
    except OSError:
        pass
    finally:
        os.close(folder)


def _address(folder: int, name: str) -> str:
    # A socket's path is at most 107 bytes; by way of the open folder it always fits.
    return f"/proc/self/fd/{folder}/{name}"
