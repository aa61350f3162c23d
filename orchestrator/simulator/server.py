"""The simulated engine as a server: it listens on 127.0.0.1 and serves each connection from a thread."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.simulator.catalogue import demo_catalogue, read_catalogue
from orchestrator.simulator.engine import Clock, Engine
from orchestrator.simulator.service import BASE, Service
from orchestrator.simulator.wire import Line, Malformed, Request, error_answer

ADDRESS = "127.0.0.1"
IDLE_SECONDS = 300.0  # without a byte from the client, until its connection is closed
REQUESTS_KEPT = 10_000
_STOP_SECONDS = 0.15  # for the threads to notice
_BACKLOG = 128


class Simulator:
    """A simulated masking engine, running while its `with` block does, or from `start` to `stop`.

    `seconds` is how long a job takes that does not say its own; `cpus` jobs and `memory` MB run at once;
    `token_life` is when a token ends, in seconds after its last use (None: never); `jobs` is a file in the
    form that `catalogue` tells; `port` 0 is any free one. `clock` gives seconds since 1970 and is the only
    clock that jobs and tokens know. Raises CatalogueError for a `jobs` file that is wrong.
    """

    def __init__(
        self,
        *,
        seconds: float = 5.0,
        cpus: int = 7,
        user: str = "admin",
        password: str = "admin",  # noqa: S107 - the documented default of a simulated engine
        first_id: int = 1,
        port: int = 0,
        token_life: float | None = None,
        jobs: Path | None = None,
        clock: Clock = time.time,
        memory: int = 16384,
    ) -> None:
        if jobs is None:
            catalogue = demo_catalogue(seconds=seconds, memory=memory, first_id=first_id)
        else:
            catalogue = read_catalogue(jobs, seconds=seconds, memory=memory, first_id=first_id)
        engine = Engine(cpus=cpus, memory=memory, first_execution=first_id, clock=clock)
        self._service = Service(catalogue, engine, user=user, password=password, token_life=token_life)
        self.port = port
        self._seen: deque[str] = deque(maxlen=REQUESTS_KEPT)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._listener: socket.socket | None = None
        self._waker: socket.socket | None = None
        self._accepting: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base of the API without a version; known once it was started."""
        return f"http://{ADDRESS}:{self.port}{BASE}"

    @property
    def requests(self) -> list[str]:
        """The last 10000 requests, as `METHOD /path?query`, oldest first; control routes too."""
        return list(self._seen)

    def executions(self) -> list[dict[str, Any]]:
        """Everything ever started, as `_simulator/executions` shows it."""
        return self._service.control.executions()

    def fault(self, **faults: object) -> None:
        """Put faults in force, 0 switches one off; raises FaultError."""
        self._service.faults.set(faults)

    def faults(self) -> dict[str, Any]:
        """The faults in force, as GET `_simulator/faults` shows them."""
        return dict(self._service.faults.in_force())

    def put_job(self, **fields: object) -> dict[str, Any]:
        """Add a job or change the one of that name and environment; it as in /masking-jobs.

        `fields` are the keys of a jobs file; raises CatalogueError.
        """
        return self._service.control.put_job(fields)

    def remove_job(self, **fields: object) -> dict[str, Any]:
        """Take the job of that name and environment away; raises CatalogueError where there is none."""
        return self._service.control.remove_job(fields)

    def reset(self) -> None:
        """Forget all executions, faults and tokens."""
        self._service.control.reset()

    def start(self) -> None:
        """Listen and serve; a second time on the same port and with what was there. Raises OSError."""
        self._service.faults.start()
        self._listener = socket.create_server((ADDRESS, self.port), backlog=_BACKLOG)
        self.port = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._waker, woken = socket.socketpair()
        self._accepting = threading.Thread(
            target=self._accept, args=(self._listener, woken), name="simulator", daemon=True
        )
        self._accepting.start()

    def stop(self) -> None:
        """Close all connections and let go whatever hangs; the state stays. Does nothing a second time."""
        if self._listener is None or self._waker is None or self._accepting is None:
            return
        self._service.faults.stop()
        self._waker.close()
        self._accepting.join()
        self._listener.close()
        self._listener = None
        with self._lock:
            threads = list(self._open.values())
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self, listener: socket.socket, woken: socket.socket) -> None:
        with woken, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                if any(key.fileobj is woken for key, _ in selector.select()):
                    return
                try:
                    connection, _ = listener.accept()
                except (BlockingIOError, ConnectionError):
                    continue  # the client has gone again
                except OSError:
                    self._service.faults.pause(0.05)  # out of files: some will be closed
                    continue
                self._open_line(connection)

    def _open_line(self, connection: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), name="simulator-line", daemon=True)
        with self._lock:
            self._open[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        with self._lock:
            del self._open[connection]
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(IDLE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = Line(connection)
            try:
                for request in line.requests():
                    if not self._answer(line, request):
                        break
            except Malformed as error:
                line.send(error_answer(error.status, str(error)), keep_alive=False)
                line.hang_up()
        except OSError:
            pass  # the client has gone, or stop was called
        finally:
            self._close(connection)

    def _answer(self, line: Line, request: Request) -> bool:
        """Answer a request; whether the connection stays open."""
        self._seen.append(f"{request.method} {request.target}")
        answer = self._service.answer(request)
        if answer is None:
            return False
        line.send(answer, method=request.method, keep_alive=request.keep_alive)
        return request.keep_alive and not answer.cut
