"""From a request to its answer: base and version, login, routes, and the faults that get in between."""

from __future__ import annotations

import json
import re
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

from orchestrator.simulator.api import Api, Call, Refused, Route, Routes
from orchestrator.simulator.catalogue import Catalogue
from orchestrator.simulator.control import Control
from orchestrator.simulator.engine import Engine
from orchestrator.simulator.faults import Faults
from orchestrator.simulator.tokens import Tokens
from orchestrator.simulator.wire import Answer, Request, error_answer, json_answer

BASE = "/masking/api"
CONTROL = "_simulator/"
HUGE = 32 * 1024 * 1024
GARBAGE = b"\xff\xfe\x00<html><body>Whitelabel {Error] Page\x80"

_PATH = re.compile(rf"{BASE}(?:/v\d+\.\d+\.\d+)?(?:/(.*?))?/?", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[^/]+/(\d{1,10})(?:/|$)", re.ASCII)
_MAX_QUERY_FIELDS = 100


class Service:
    """Answers the requests to one engine, whose login is `user` and `password`. For any number of threads."""

    def __init__(
        self, catalogue: Catalogue, engine: Engine, *, user: str, password: str, token_life: float | None
    ) -> None:
        self.faults = Faults()
        self._clock = engine.clock
        self._tokens = Tokens(token_life, engine.clock)
        self.control = Control(catalogue, engine, self.faults, self._tokens)
        self._routes = Api(catalogue, engine, self.faults).routes
        self._login_routes: Routes = {"login": {"POST": self._login}}
        self._user = user
        self._password = password

    def answer(self, request: Request) -> Answer | None:
        """What is sent for a request; None: nothing, the connection is closed."""
        try:
            answer = self._answer(request)
        except Refused as error:
            answer = error_answer(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - as a real engine: 500, and on with the next request
            answer = error_answer(500, f"{type(error).__name__}: {error}")
        if answer is not None:
            date = formatdate(self._clock() + self.faults.number("clock"), usegmt=True)
            answer.headers = {"Date": date} | (answer.headers or {})
        return answer

    def _answer(self, request: Request) -> Answer | None:
        match = _PATH.fullmatch(request.path)
        path = (match[1] or "") if match else ""
        if path.startswith(CONTROL):
            return self._routed(request, self.control.routes, path.removeprefix(CONTROL))
        pause = self.faults.number("slow")
        if pause:
            self.faults.pause(pause)
        redirect = self.faults.redirect
        if redirect:
            return json_answer(302, {}, {"Location": redirect})
        if path == "login":
            return self._routed(request, self._login_routes, path)
        return self._routed(request, self._routes, path, guarded=True)

    def _routed(self, request: Request, routes: Routes, path: str, *, guarded: bool = False) -> Answer | None:
        number = 0
        match = _NUMBER.match(path)
        if match:
            number = int(match[1])
            path = f"{path[: match.start(1)]}#{path[match.end(1) :]}"
        methods = routes.get(path)
        if methods is None:
            raise Refused(404, f"there is no {request.path[:200]}")
        route = methods.get(request.method)
        if route is None:
            reason = f"{request.path[:200]} takes {' or '.join(methods)}"
            return error_answer(405, reason, {"Allow": ", ".join(methods)})
        if not guarded:
            return json_answer(200, route(self._call(request, number)))
        if not self._tokens.accept(request.token):
            raise Refused(401, "Invalid or expired Authorization token")
        is_start = path == "executions" and request.method == "POST"
        return self._with_faults(route, request, number, is_start=is_start)

    def _with_faults(self, route: Route, request: Request, number: int, *, is_start: bool) -> Answer | None:
        # At most one counted fault a request, so that the counts of several add up.
        take = self.faults.take
        if take("hang"):
            self.faults.hang()
            return None
        if take("status_401"):
            self._tokens.clear()
            raise Refused(401, "Invalid or expired Authorization token")
        if take("status_500"):
            raise Refused(500, "Internal server error")
        if take("status_503"):
            raise Refused(503, "Service unavailable")
        if is_start and take("lost_request"):
            return None
        if is_start and take("refuse_start"):
            raise Refused(409, "The job cannot be started now")
        document = route(self._call(request, number))
        if is_start and take("lost_answer"):
            return None
        if take("garbage"):
            return Answer(200, GARBAGE)
        if take("wrong_types"):
            return json_answer(200, _wrong(document))
        answer = json_answer(200, document)
        if take("truncated"):
            answer.cut = True
        elif take("huge"):
            answer.padding = HUGE
        return answer

    def _call(self, request: Request, number: int) -> Call:
        if not request.query:
            return Call({}, request.body, number)
        try:
            pairs = parse_qsl(request.query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError:
            raise Refused(400, "the query has too many fields") from None
        return Call(dict(reversed(pairs)), request.body, number)  # of a name given twice, the first counts

    def _login(self, call: Call) -> dict[str, str]:
        fields = call.fields()
        given = (fields.get("username"), fields.get("password"))
        if given != (self._user, self._password) or self.faults.number("refuse_login"):
            raise Refused(401, "Invalid username or password")
        return {"Authorization": self._tokens.issue()}


def _wrong(value: Any) -> Any:
    """The value with its keys kept and every leaf of another type than it should be."""
    if isinstance(value, dict):
        return {key: _wrong(each) for key, each in value.items()}
    if isinstance(value, list):
        return {"row": [_wrong(each) for each in value]}
    if isinstance(value, str):
        return [value]
    return f"about {json.dumps(value)}"
