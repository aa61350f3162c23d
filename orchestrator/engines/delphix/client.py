"""Talking to one masking engine: login, one re-login at 401, pages, time limits. Knows HTTP, not jobs."""

from __future__ import annotations

import json
import ssl
import time
import warnings
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from orchestrator import __version__
from orchestrator.engines.delphix.settings import (
    ANSWER_TIMEOUT,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    START_LEAVES,
    DelphixSettings,
)
from orchestrator.engines.secret import read_secret
from orchestrator.errors import EngineDown, EngineError, LoginRefused, StartRefused, StartUnknown
from orchestrator.job import ascii_line

MAX_ANSWER = 32 * 1024 * 1024  # bytes; a page of 1000 executions has about 0.4 MB
PAGE_SIZE = 1000
MAX_PAGES = 1000  # of one list: more than any engine shows in earnest, also where it gives less than PAGE_SIZE

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": f"orchestrator/{__version__}"}

Row = dict[str, Any]


class NotThere(EngineError):  # noqa: N818 - named for what it tells
    """The engine answered 404."""


class Refused(EngineError):  # noqa: N818 - named for what it tells
    """The engine answered with another 4xx status: this request will not be served."""


class DelphixClient:
    """One session with one engine. `logins` counts how often it logged in."""

    def __init__(self, settings: DelphixSettings) -> None:
        self._settings = settings
        self._token: str | None = None
        self.logins = 0
        self._date: tuple[str | None, float] = (None, 0.0)  # of the last answer, and when it came by our own clock
        self._url: str | None = None  # as it is sent, with a host of ASCII
        # Nothing comes from the environment: a ~/.netrc would replace the token, a proxy would see it.
        self._adapter = HTTPAdapter()
        if settings.verify is False:
            warnings.filterwarnings("ignore", category=urllib3.exceptions.InsecureRequestWarning)

    def clock_skew(self) -> float | None:
        """Give the seconds by which the engine's clock was ahead of ours at its last answer; None: it did not tell."""
        date, came_at = self._date
        try:
            return None if date is None else parsedate_to_datetime(date).timestamp() - came_at
        except (ValueError, OverflowError):
            return None

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def get(self, path: str, **params: object) -> Row:
        """GET one object. Raises NotThere, Refused or EngineDown."""
        return _object(path, self._ask("GET", path, params=params))

    def pages(self, path: str, **params: object) -> Iterator[Row]:
        """GET a whole list, page by page: all rows that it announced, no fewer and no more. Raises as `get`."""
        seen, before = 0, None
        for number in range(1, MAX_PAGES + 1):
            rows, total = self.page(path, number, PAGE_SIZE, **params)
            seen += len(rows)
            if seen > total:
                raise EngineDown(f"GET {path}: it shows more rows than the {total} announced")
            if seen < total and not rows:
                raise EngineDown(f"GET {path}: {total} rows were announced, and only {seen} shown")
            if rows and rows == before:
                raise EngineDown(f"GET {path}: it shows the same page twice")
            yield from rows
            if seen == total:
                return
            before = rows
        raise EngineDown(f"GET {path}: it has over {MAX_PAGES} pages")

    def page(self, path: str, number: int, size: int, **params: object) -> tuple[list[Row], int]:
        """GET one page of a list: its rows, and how many there are on all pages. Raises as `get`."""
        answer = self.get(path, page_number=number, page_size=size, **params)
        rows, info = answer.get("responseList"), answer.get("_pageInfo")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise EngineDown(f"GET {path}: the answer has no proper responseList")
        total = info.get("total") if isinstance(info, dict) else None
        if type(total) is not int or total < len(rows):
            raise EngineDown(f"GET {path}: the answer has no proper _pageInfo")
        return rows, total

    def post(self, path: str, body: Row) -> Row | None:
        """POST something that may be done twice without harm. Raises as `get`."""
        answer = self._ask("POST", path, body=body)
        return answer if isinstance(answer, dict) else None

    def post_once(self, path: str, body: Row) -> Row:
        """POST something that must not be done twice.

        Raises StartRefused (it was not done), StartUnknown (it may have been), or EngineDown (it never left).
        """
        began = time.monotonic()
        self._login_if_needed()
        try:
            status, answer = self._send_soon(began, path, body)
            if status == 401:  # not done: the token has ended
                self._login()
                status, answer = self._send_soon(began, path, body)
        except _NotSent as exc:
            raise EngineDown(str(exc)) from exc
        except (LoginRefused, StartUnknown):
            raise
        except EngineDown as exc:
            raise StartUnknown(str(exc)) from exc
        if status == 401:
            raise LoginRefused("a new token was refused at once")
        if 400 <= status < 500:
            raise StartRefused(f"the engine refused: {_message(status, answer)}")
        if not 200 <= status < 300:
            raise StartUnknown(f"the engine answered {_message(status, answer)}")
        if not isinstance(answer, dict):
            raise StartUnknown("the engine's answer makes no sense")
        return answer

    def _send_soon(self, began: float, path: str, body: Row) -> tuple[int, object]:
        """Send a POST, unless too long has passed since it was meant: whoever looks for it relies on that."""
        if time.monotonic() - began > START_LEAVES:
            raise _NotSent(f"POST {path}: not sent, since it took over {START_LEAVES:.0f} s to log in")
        return self._send("POST", path, body=body)

    def _ask(self, method: str, path: str, *, params: Row | None = None, body: Row | None = None) -> Any:
        self._login_if_needed()
        status, answer = self._send(method, path, params=params, body=body)
        if status == 401:
            self._login()
            status, answer = self._send(method, path, params=params, body=body)
        what = f"{method} {path}: {_message(status, answer)}"
        if status == 401:
            raise LoginRefused(f"{what}: a new token was refused at once")
        if status == 404:
            raise NotThere(what)
        if status == 429 or status >= 500 or status < 200 or 300 <= status < 400:
            raise EngineDown(what)
        if status >= 400:
            raise Refused(what)
        return answer

    def _login_if_needed(self) -> None:
        if self._token is None:
            self._login()

    def _login(self) -> None:
        self._token = None
        settings = self._settings
        body = {"username": settings.username, "password": read_secret(settings.password)}
        status, answer = self._send("POST", "/login", body=body)
        if status in (400, 401, 403):
            raise LoginRefused(f"the login of {settings.username} was refused: {_message(status, answer)}")
        if status != 200:
            raise EngineDown(f"POST /login: {_message(status, answer)}")
        token = answer.get("Authorization") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise EngineDown("POST /login: the answer holds no token")
        self._token = token
        self.logins += 1

    def _send(
        self, method: str, path: str, *, params: Row | None = None, body: Row | None = None
    ) -> tuple[int, object]:
        """Send one request; status and JSON of the answer (None where a refusal has none). Raises EngineDown."""
        deadline = time.monotonic() + ANSWER_TIMEOUT
        try:
            request = self._prepare(method, path, params, body)
            with self._adapter.send(
                request, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), verify=self._settings.verify
            ) as response:
                content = _content(response, f"{method} {path}", deadline)
                status = response.status_code
                self._date = response.headers.get("Date"), time.time()
        except (requests.RequestException, urllib3.exceptions.HTTPError) as exc:
            down = _NotSent if _never_left(exc) else EngineDown
            raise down(f"{method} {path}: {_tls_advice(exc, self._settings.url) or _cause(exc)}") from exc
        if 300 <= status < 400:
            raise EngineDown(f"{method} {path}: redirected (status {status}), which is not followed: check the url")
        try:
            return status, json.loads(content) if content else None
        except (ValueError, RecursionError) as exc:
            if status >= 400:
                return status, None
            raise EngineDown(f"{method} {path}: the answer is not JSON") from exc

    def _prepare(self, method: str, path: str, params: Row | None, body: Row | None) -> requests.PreparedRequest:
        """Make a request. A session makes each from all its settings anew, in a third of the time of a request."""
        if self._url is None:
            self._url = requests.Request("GET", self._settings.url).prepare().url or ""
        request = requests.PreparedRequest()
        request.method, request.url = method, self._url + path + (f"?{urlencode(params)}" if params else "")
        request.headers = CaseInsensitiveDict(_HEADERS)
        if self._token is not None:
            request.headers["Authorization"] = self._token
        if body is not None:
            request.body = json.dumps(body).encode()
            request.headers["Content-Type"] = "application/json"
            request.headers["Content-Length"] = str(len(request.body))
        return request


class _NotSent(EngineDown):
    """The request never reached the engine."""


def _never_left(exc: BaseException) -> bool:
    if isinstance(exc, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(exc.args[0], "reason", None) if exc.args else None
    return isinstance(reason, urllib3.exceptions.NewConnectionError)


def _content(response: requests.Response, what: str, deadline: float) -> bytes:
    content = bytearray()
    while part := response.raw.read1(65536, decode_content=True):  # what has come, however slowly
        content += part
        if len(content) > MAX_ANSWER:
            raise EngineDown(f"{what}: the answer is over {MAX_ANSWER // 2**20} MiB")
        if time.monotonic() > deadline:
            raise EngineDown(f"{what}: the answer takes over {ANSWER_TIMEOUT:.0f} s")
    return bytes(content)


def _object(path: str, answer: object) -> Row:
    if not isinstance(answer, dict):
        raise EngineDown(f"GET {path}: the answer is not an object")
    return answer


def _message(status: int, answer: object) -> str:
    message = answer.get("errorMessage") if isinstance(answer, dict) else None
    return f"status {status}" + (f": {ascii_line(message)[:200]}" if isinstance(message, str) else "")


# What to do about a certificate, by OpenSSL's number of what is wrong with it (x509_vfy.h).
_UNTRUSTED = 'get the CA that signed it from whoever runs the engine, and set verify = "/path/ca.pem"'
_ADVICE = {
    9: "is the clock of this host right, and that of the engine's?",
    10: "have it renewed on the engine",
    18: 'compare it with the one on the engine itself, and set verify = "/path/of/that.pem"',
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    62: "set url to a name that the certificate bears, or have it made for this one",
    64: "set url to a name that the certificate bears, or have it made for this one",
}


def _tls_advice(exc: BaseException, url: str) -> str | None:
    """Give what is wrong with an engine's certificate and what to do, in one line; None where it is something else."""
    inner: BaseException | None = exc
    while inner is not None and not isinstance(inner, ssl.SSLError):
        reason = getattr(inner.args[0], "reason", None) if inner.args else None
        inner = inner.__cause__ or inner.__context__ or (reason if isinstance(reason, BaseException) else None)
    host = urlsplit(url).netloc
    if isinstance(inner, ssl.SSLCertVerificationError):
        advice = _ADVICE.get(inner.verify_code, _UNTRUSTED)
        return f"certificate verify failed: {ascii_line(inner.verify_message)[:200]}: {host}: {advice}"
    if isinstance(inner, ssl.SSLError) and inner.reason == "WRONG_VERSION_NUMBER":
        return f"{host} does not speak TLS: is the port of the url right, or should it begin with http:?"
    return None


def _cause(exc: BaseException) -> str:
    """The innermost reason, without the layers of the libraries around it."""
    text = str(exc)
    while exc.__context__ is not None or exc.__cause__ is not None:
        inner = exc.__cause__ or exc.__context__
        if inner is None or not str(inner):
            break
        exc, text = inner, str(inner)
    return ascii_line(f"{type(exc).__name__}: {text}")[:200]
