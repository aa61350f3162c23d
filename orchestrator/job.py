"""The job file: its name, its keys, and what is refused. Pure: no I/O.

The contract is docs/protocol.md. Everything a job file may say is in `JobRequest`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.duration import parse_duration
from orchestrator.errors import JobRefused
from orchestrator.process import MAX_PID

MAX_FILE_BYTES = 64 * 1024
DEFAULT_PRIORITY = 50

JOB_SUFFIX = ".job"
LIGHT_SUFFIX = ".trafficlight"
CANCEL_SUFFIX = ".cancel"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,199}", re.ASCII)
_PARAM = re.compile(r"param\.([A-Za-z0-9_-]{1,64})", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_ENGINE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What one job file asks for, checked. Field names are the keys of the protocol."""

    job: str
    environment: str | None = None
    engine: tuple[str, ...] = ()  # empty: any engine that has the job
    source_connector: int | None = None
    target_connector: int | None = None
    command: str | None = None
    priority: int | None = None  # None: the spool's default
    pid: int | None = None
    timeout: float | None = None  # seconds from start; None: the spool's default
    retries: int = 0
    on_caller_exit: str = "keep"
    on_unknown: str = "fail"
    on_warning: str = "fail"
    params: Mapping[str, str] = field(default_factory=dict)


def is_name(name: str) -> bool:
    """Tell whether `name` may be a NAME of the protocol."""
    return _NAME.fullmatch(name) is not None


def is_engine_name(name: str) -> bool:
    """Tell whether `name` may name an engine: it must fit into a list, a light and a table."""
    return _ENGINE.fullmatch(name) is not None


def parse_job_file(content: bytes, name: str) -> JobRequest:
    """Read a job file.

    `content` is the whole file, at most one byte more than MAX_FILE_BYTES (the surplus byte shows that it is
    too long); `name` its NAME. Raises JobRefused with the line (1-based) and the reason.
    """
    if len(content) > MAX_FILE_BYTES:
        raise JobRefused(f"the file is over {MAX_FILE_BYTES // 1024} KiB")
    if b"\x00" in content:
        raise JobRefused("a NUL byte", content.count(b"\n", 0, content.index(b"\x00")) + 1)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise JobRefused("bytes that are not UTF-8", content.count(b"\n", 0, exc.start) + 1) from exc
    values: dict[str, Any] = {}
    params: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise JobRefused(f"not key=value: {line[:80]!r}", number)
        if _CONTROL.search(value):
            raise JobRefused(f"{key[:64]!r}: a control character in the value", number)
        param = _PARAM.fullmatch(key)
        if param:
            if param[1] in params:
                raise JobRefused(f"{key} is given twice", number)
            params[param[1]] = value
            continue
        read = _KEYS.get(key)
        if read is None:
            raise JobRefused(f"unknown key {key[:64]!r}", number)
        if key in values:
            raise JobRefused(f"{key} is given twice", number)
        try:
            values[key] = read(value)
        except ValueError as exc:
            raise JobRefused(f"{key}: {exc}", number) from None
    values.setdefault("job", name.partition("@")[0])
    if values.get("on_caller_exit") == "cancel" and "pid" not in values:
        raise JobRefused("on_caller_exit=cancel needs pid=, else nobody can tell that the caller is gone")
    return JobRequest(params=params, **values)


def _text(value: str) -> str:
    if not value:
        raise ValueError("empty")
    if len(value) > 4096:
        raise ValueError("longer than 4096 characters")
    return value


def _engines(value: str) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if not is_engine_name(name):
            raise ValueError(f"not an engine's name: {name[:64]!r}")
    return tuple(dict.fromkeys(names))


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"\d{1,10}", value, re.ASCII) or not low <= int(value) <= high:
            raise ValueError(f"not a whole number from {low} to {high}: {value[:64]!r}")
        return int(value)

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in words:
            raise ValueError(f"not {' or '.join(words)}: {value[:64]!r}")
        return value

    return read


_KEYS: dict[str, Callable[[str], Any]] = {
    "job": _text,
    "environment": _text,
    "engine": _engines,
    "source_connector": _whole(1, 2**31 - 1),
    "target_connector": _whole(1, 2**31 - 1),
    "command": _text,
    "priority": _whole(0, 100),
    "pid": _whole(2, MAX_PID),  # 1 is never a caller
    "timeout": parse_duration,
    "retries": _whole(0, 100),
    "on_caller_exit": _one_of("keep", "cancel"),
    "on_unknown": _one_of("fail", "retry"),
    "on_warning": _one_of("fail", "finish"),
}


def ascii_line(text: object) -> str:
    """Give `text` as one line of printable ASCII: everything else as \\xNN or \\uNNNN escapes.

    What comes from a job file or an engine passes through here before it reaches a light, a log or a terminal.
    """
    line = str(text)
    if line.isascii() and line.isprintable():  # nearly always
        return line
    return "".join(char if " " <= char <= "~" else char.encode("unicode_escape").decode("ascii") for char in line)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of QUEUE, as the steps and the engines see it. What each field means stands in store/models.py."""

    id: int
    host: str
    spool: str
    name: str
    claim: str | None
    status: str
    job: str
    environment: str | None
    engines: str
    command: str | None
    shell: bool
    params: str
    source_connector: int | None
    target_connector: int | None
    demand: str
    priority: int
    timeout: float | None
    retries: int
    on_caller_exit: str
    on_unknown: str
    on_warning: str
    owner: int | None
    caller: str | None
    light: str | None
    engine: str | None
    cpu: str | None
    execution: str | None
    attempts: int
    tried: str
    starter: str | None
    start_mark: str | None
    starting_tick: str | None
    ending: str | None
    ending_why: str | None
    ending_tick: str | None
    submitted_at: str
    started_at: str | None
    started_tick: str | None
    unsure_tick: str | None
    ended_at: str | None
    kept_since: str | None
    released_at: str | None
    exit: int | None
    reason: str | None
    detail: str | None
    rows_masked: int | None
    rows_total: int | None

    def but(self, **columns: object) -> Job:
        """Give the row as it is with these columns changed."""
        job = object.__new__(Job)  # its own __init__ would set each field by itself, which takes four times as long
        job.__dict__.update(self.__dict__, **columns)
        return job

    @property
    def allowed_engines(self) -> frozenset[str]:
        """The engines it may run on; empty: any."""
        return split_words(self.engines)

    @property
    def tried_engines(self) -> frozenset[str]:
        """The engines where an attempt of it failed."""
        return split_words(self.tried)


def demand_of(request: JobRequest, engines: str, *, shell: bool) -> str:
    """Give all that decides where a job can run, in one text: of two jobs alike in it, no engine has only one.

    One shell line is as good as another.
    """
    command = "" if shell else request.command or ""
    return "\x1f".join((request.job, request.environment or "", command, "shell" if shell else "", engines))


def split_words(text: str) -> frozenset[str]:
    """Read a comma-separated column."""
    return frozenset(text.split(",")) if text else frozenset()
