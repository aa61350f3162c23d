"""HTTP/1.1 on a socket, only as much of it as a simulated engine needs, and quickly.

http.server parses the headers of each request as an e-mail, which costs more than all the rest of a request.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from urllib.parse import urlsplit

MAX_HEAD = 64 * 1024
MAX_BODY = 1024 * 1024
LINGER_SECONDS = 2.0
_BLOCK = 64 * 1024
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class Malformed(Exception):  # noqa: N818 - named for what it tells
    """Bytes that are no request that can be read: the connection ends after an answer with `status`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Request:
    """A request: `target` as it was sent, `path` and `query` split from it, `token` its Authorization."""

    method: str
    target: str
    path: str
    query: str
    token: str | None
    body: bytes
    keep_alive: bool


@dataclass(slots=True)
class Answer:
    """An answer: its status, its whole body and further headers. It ends early where `cut` says so.

    `padding` bytes of blanks are sent after the body as a part of it.
    """

    status: int
    body: bytes
    headers: dict[str, str] | None = None
    padding: int = 0
    cut: bool = False


def json_answer(status: int, document: object, headers: dict[str, str] | None = None) -> Answer:
    """The answer whose body is `document` as JSON."""
    return Answer(status, json.dumps(document, separators=(",", ":")).encode(), headers)


def error_answer(status: int, reason: str, headers: dict[str, str] | None = None) -> Answer:
    """The answer of an engine that refuses: `{"errorMessage": reason}`."""
    return json_answer(status, {"errorMessage": reason}, headers)


class Line:
    """One client's connection: requests are read from it, answers written to it, by one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    def requests(self) -> Iterator[Request]:
        """The requests as they come, until the client hangs up; raises Malformed, OSError."""
        while True:
            head = self._head()
            if head is None:
                return
            yield self._request(head)

    def send(self, answer: Answer, *, method: str = "GET", keep_alive: bool) -> None:
        """Write an answer; raises OSError."""
        length = len(answer.body) + answer.padding
        lines = [
            f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}",
            "Content-Type: application/json",
            f"Content-Length: {length}",
        ]
        if not keep_alive:
            lines.append("Connection: close")
        if answer.headers:
            lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        if method == "HEAD":
            self._socket.sendall(head)
        elif answer.cut:
            self._socket.sendall(head + answer.body[: len(answer.body) // 2])
        else:
            self._socket.sendall(head + answer.body)
            blanks = b" " * min(answer.padding, _BLOCK)
            for sent in range(0, answer.padding, _BLOCK):
                self._socket.sendall(blanks[: answer.padding - sent])

    def hang_up(self) -> None:
        """End the connection so that the client reads the last answer even while it is still sending."""
        self._socket.shutdown(socket.SHUT_WR)
        deadline = monotonic() + LINGER_SECONDS
        self._socket.settimeout(LINGER_SECONDS)
        while self._socket.recv(_BLOCK) and monotonic() < deadline:
            pass

    def _head(self) -> bytes | None:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end == 0:  # blank lines before a request are allowed
                self._buffer = self._buffer.lstrip(b"\r\n")
                continue
            if end > 0:
                head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
                return head
            if len(self._buffer) > MAX_HEAD:
                raise Malformed(431, "the headers are too long")
            if not self._more():
                return None

    def _request(self, head: bytes) -> Request:
        first, *rest = head.decode("latin-1").lstrip("\r\n").split("\r\n")
        try:
            method, target, version = first.split(" ")
        except ValueError:
            raise Malformed(400, "not a request line") from None
        if not version.startswith("HTTP/"):
            raise Malformed(400, "not a request line")
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            raise Malformed(505, "only HTTP/1.1 is served")
        headers = {}
        for line in rest:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise Malformed(400, "not a header")
            headers[name.lower()] = value.strip()
        path, query = _split(target)
        wishes = headers.get("connection", "").lower()
        return Request(
            method=method,
            target=target,
            path=path,
            query=query,
            token=headers.get("authorization"),
            body=self._body(headers),
            keep_alive=wishes != "close" if version == "HTTP/1.1" else wishes == "keep-alive",
        )

    def _body(self, headers: dict[str, str]) -> bytes:
        if "transfer-encoding" in headers:
            raise Malformed(411, "a body needs a Content-Length")
        text = headers.get("content-length", "0")
        if not (text.isascii() and text.isdecimal()):
            raise Malformed(400, "Content-Length is not a number")
        if len(text) > 18 or int(text) > MAX_BODY:
            raise Malformed(413, f"a body may have {MAX_BODY} bytes")
        length = int(text)
        if length and headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(self._buffer) < length:
            if not self._more():
                raise Malformed(400, "the body ended early")
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return body

    def _more(self) -> bool:
        block = self._socket.recv(_BLOCK)
        self._buffer += block
        return bool(block)


def _split(target: str) -> tuple[str, str]:
    if not target.startswith("/"):  # a proxy's form, http://host/path; all else is not found
        try:
            parts = urlsplit(target)
        except ValueError:
            raise Malformed(400, "not a request target") from None
        return parts.path, parts.query
    path, _, query = target.partition("?")
    return path, query.partition("#")[0]
