"""Everything that can be set: its default, its meaning, its check. Read once at the start from orchestrator.toml.

What only one kind of engine knows (url, password, ...) is kept as it stands in `EngineSettings.options` and
checked by that kind, so that a command that needs no engine need not import one.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, overload

from orchestrator.duration import parse_duration
from orchestrator.errors import SettingsError
from orchestrator.job import DEFAULT_PRIORITY, is_engine_name, is_name

T = TypeVar("T")

# What is meant to be {param.NAME}, perhaps misspelt: it would reach the command as it stands.
_LIKE_PARAM = re.compile(r"\{\s*params?\s*(?:\.[^{}]*)?\}|\{\s*params?\.[^{}]*", re.IGNORECASE)

DEFAULT_MAX_WAITING = 200_000
CONFIG_VARIABLE = "ORCHESTRATOR_CONFIG"
CONFIG_PLACES = ("orchestrator.toml", "/etc/orchestrator/orchestrator.toml")


@dataclass(frozen=True, kw_only=True)
class SpoolSettings:
    """One spool directory and the defaults of the jobs that are dropped there."""

    name: str
    path: Path
    engines: tuple[str, ...] | None = None  # engines its jobs may use; None: all
    priority: int = DEFAULT_PRIORITY
    timeout: float | None = None  # seconds from start to TIMEOUT; None: none
    shell_commands: bool = False  # may a job file carry command=<shell line>?
    observer: str = "auto"  # auto, inotify or polling
    max_waiting: int = DEFAULT_MAX_WAITING  # unfinished jobs that one owner may have in it


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """One engine. `options` holds the keys that only its kind understands."""

    name: str
    kind: str
    cpus: int | None  # rows to make where ENGINES has none of this engine; None: the table alone rules
    options: Mapping[str, Any]
    where: str  # file and table, for messages


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of orchestrator.toml."""

    file: Path
    database: str  # URL, its path absolute
    run_dir: Path  # sockets, heartbeats, command state
    log_dir: Path  # output of commands
    spools: Mapping[str, SpoolSettings]
    engines: Mapping[str, EngineSettings]
    commands: Mapping[str, tuple[str, ...]]  # name: program and arguments


def find_settings(given: str | None) -> Path:
    """Find the settings file: `given`, else $ORCHESTRATOR_CONFIG, else the usual places.

    Raises SettingsError where there is none.
    """
    asked = given or os.environ.get(CONFIG_VARIABLE)
    if asked:
        return Path(asked)
    for place in CONFIG_PLACES:
        if Path(place).is_file():
            return Path(place)
    raise SettingsError(
        f"no settings: give --config FILE, set ${CONFIG_VARIABLE}, or make ./orchestrator.toml "
        "with `orchestrator init .`"
    )


def load_settings(file: Path, *, look_only: bool = False) -> Settings:
    """Read and check a settings file. Raises SettingsError with the file, the key and what is wrong, in one line.

    With `look_only` no directory is made, or asked to be there: for whoever only looks, and tells of each by itself.
    """
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            table = tomllib.loads(opened.read().decode("utf-8"))
    except OSError as exc:
        raise SettingsError(f"{file}: cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:  # also UTF-8, a number of too many digits, too many brackets
        raise SettingsError(f"{file}: not TOML: {exc}") from exc
    if mode & 0o022 and not look_only:  # it names the programs that are run
        raise SettingsError(
            f"{file}: others than its owner may write to it (mode {mode & 0o777:03o}): "
            f"chmod go-w {shlex.quote(str(file))}"
        )
    base = file.absolute().parent
    top = SettingsTable(str(file), "", table)
    database = _database(top, base, look_only=look_only)
    run_dir = _directory(top, "run_dir", base, make=0o700, default="run", look_only=look_only)
    log_dir = _directory(top, "log_dir", base, make=0o700, default="log", look_only=look_only)
    engines = {name: _engine(name, top.table("engines", name)) for name in top.names("engines")}
    commands = {name: _command(top.table("commands", name)) for name in top.names("commands")}
    spools = {
        name: _spool(name, top.table("spools", name), base, engines, look_only=look_only)
        for name in top.names("spools")
    }
    if not spools:
        top.fail("spools", "no spool: add [spools.default] with a path")
    top.finish()
    seen: dict[Path, str] = {}
    for spool in spools.values():
        real = spool.path.resolve()
        if real in seen:
            top.fail(f"spools.{spool.name}.path", f"the same directory as spools.{seen[real]}.path: {real}")
        seen[real] = spool.name
    return Settings(
        file=file.absolute(), database=database, run_dir=run_dir, log_dir=log_dir,
        spools=spools, engines=engines, commands=commands,
    )  # fmt: skip


class SettingsTable:
    """One table of the file while it is read: each key is taken once, with its type; what is left over is unknown."""

    def __init__(self, file: str, path: str, values: Mapping[str, Any]) -> None:
        self._file = file
        self._path = path
        self._values = dict(values)
        self._known: list[str] = []

    def fail(self, key: str, why: str) -> NoReturn:
        """Raise SettingsError for `key` of this table."""
        dotted = ".".join(part for part in (self._path, key) if part)
        raise SettingsError(f"{self._file}: {dotted}: {why}")

    @property
    def where(self) -> str:
        """The file and this table's name."""
        return f"{self._file}: {self._path}"

    def take(self, key: str, kind: type[T], default: T | None = None, *, needed: bool = False) -> T | None:
        """Take one value; `kind` is its type in TOML."""
        self._known.append(key)
        if key not in self._values:
            if needed:
                self.fail(key, "is missing")
            return default
        value = self._values.pop(key)
        if type(value) is not kind:
            found = "" if key == "password" else f", not {_shown(value)}"
            self.fail(key, f"must be {_TYPE_NAMES[kind]}{found}")
        return value

    def take_words(self, key: str) -> tuple[str, ...] | None:
        """Take a list of strings."""
        words = self.take(key, list)
        if words is None:
            return None
        if not all(type(word) is str for word in words):
            self.fail(key, "must be a list of strings")
        return tuple(words)

    def take_one_of(self, key: str, kinds: tuple[type[T], ...], default: T) -> T:
        """Take one value that may be of several types."""
        self._known.append(key)
        value = self._values.pop(key, default)
        if type(value) not in kinds:
            self.fail(key, f"must be {' or '.join(_TYPE_NAMES[kind] for kind in kinds)}, not {_shown(value)}")
        return cast("T", value)

    @overload
    def take_seconds(self, key: str, default: float) -> float: ...
    @overload
    def take_seconds(self, key: str) -> float | None: ...
    def take_seconds(self, key: str, default: float | None = None) -> float | None:
        """Take a duration: a number of seconds, or `500ms`, `30s`, `15m`, `2h`."""
        self._known.append(key)
        if key not in self._values:
            return default
        value = self._values.pop(key)
        if type(value) not in (int, float, str):
            self.fail(key, f"must be a duration such as 30, '30s' or '2h', not {_shown(value)}")
        try:
            return parse_duration(str(value))
        except ValueError as exc:
            self.fail(key, str(exc))

    def names(self, key: str) -> list[str]:
        """The names of the tables below `key`."""
        self._known.append(key)
        tables = self._values.get(key, {})
        if type(tables) is not dict:
            self.fail(key, f"must be tables [{key}.NAME]")
        for name, table in tables.items():
            if type(table) is not dict:
                self.fail(key, f"{name!r} must stand in a table [{key}.NAME]")
            if not is_name(name):
                self.fail(key, f"{name!r} is not a name (letters, digits, . _ @ + -)")
        return list(tables)

    def table(self, key: str, name: str) -> SettingsTable:
        """The table [key.name]."""
        return SettingsTable(self._file, f"{key}.{name}", self._values[key][name])

    def rest(self) -> dict[str, Any]:
        """Take all that is left, unchecked."""
        rest, self._values = self._values, {}
        return rest

    def finish(self) -> None:
        """Complain about a key that nobody took."""
        for key in self._values:
            if key not in self._known:
                close = difflib.get_close_matches(key, self._known, 1)
                self.fail(key, "unknown key" + (f" (did you mean {close[0]}?)" if close else ""))


def _shown(value: object) -> str:
    """Give a value for a message: not all of a long one, and some numbers are too long for Python to write."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


_TYPE_NAMES: dict[type, str] = {
    str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "a table",
}  # fmt: skip


def _database(top: SettingsTable, base: Path, *, look_only: bool) -> str:
    url = top.take("database", str, "sqlite:///orchestrator.db") or ""
    scheme, separator, path = url.partition("://")
    if not separator or scheme not in ("sqlite", "postgresql"):
        top.fail("database", f"must be sqlite:///PATH, not {url.partition('@')[0]!r}")
    if scheme == "postgresql":
        top.fail("database", "PostgreSQL is not supported yet: use sqlite:///PATH")
    if not path.startswith("/") or len(path) < 2:
        top.fail("database", "must be sqlite:///PATH (three slashes: relative to this file; four: absolute)")
    file = base / path[1:]
    if look_only:
        return f"sqlite:///{file}"
    if not _looked_at(top, "database", file.parent, Path.is_dir):
        top.fail("database", f"the directory is missing: {file.parent}")
    if file.is_dir():
        top.fail("database", f"is a directory: {file}")
    return f"sqlite:///{file}"


def _directory(
    table: SettingsTable, key: str, base: Path, *, make: int | None, default: str | None = None, look_only: bool = False
) -> Path:
    text = table.take(key, str, default, needed=default is None) or ""
    if not text:
        table.fail(key, "must not be empty")
    path = base / text
    if look_only:
        return path
    there = _looked_at(table, key, path, Path.is_dir)
    if make is not None and not there and _looked_at(table, key, path.parent, Path.is_dir):
        try:
            path.mkdir(mode=make)
        except FileExistsError:  # something else, or another program made it just now
            pass
        except (OSError, ValueError) as exc:
            table.fail(key, f"cannot make {path}: {exc.strerror if isinstance(exc, OSError) else exc}")
        there = path.is_dir()
    if not there:
        if _looked_at(table, key, path, Path.exists):
            table.fail(key, f"is not a directory: {path}")
        table.fail(key, f"the directory is missing: {path}")
    return path


def _looked_at(table: SettingsTable, key: str, path: Path, look: Callable[[Path], bool]) -> bool:
    """Look at a path; one that cannot be (too long, in a directory that is closed to us) is named."""
    try:
        return look(path)
    except OSError as exc:
        table.fail(key, f"{path}: {exc.strerror}")


def _spool(
    name: str, table: SettingsTable, base: Path, engines: Mapping[str, EngineSettings], *, look_only: bool
) -> SpoolSettings:
    path = _directory(table, "path", base, make=None, look_only=look_only)
    allowed = table.take_words("engines")
    for engine in allowed or ():
        if engine not in engines:
            table.fail("engines", f"there is no [engines.{engine}]")
    priority = table.take("priority", int, DEFAULT_PRIORITY)
    if priority is None or not 0 <= priority <= 100:
        table.fail("priority", f"must be from 0 to 100, not {_shown(priority)}")
    observer = table.take("observer", str, "auto")
    if observer not in ("auto", "inotify", "polling"):
        table.fail("observer", f"must be auto, inotify or polling, not {_shown(observer)}")
    max_waiting = table.take("max_waiting", int, DEFAULT_MAX_WAITING)
    if max_waiting is None or not 1 <= max_waiting <= 10_000_000:
        table.fail("max_waiting", f"must be from 1 to 10000000, not {_shown(max_waiting)}")
    spool = SpoolSettings(
        name=name, path=path, engines=allowed, priority=priority or 0,
        timeout=table.take_seconds("timeout"),
        shell_commands=bool(table.take("shell_commands", bool, False)),
        observer=observer or "auto",
        max_waiting=max_waiting or DEFAULT_MAX_WAITING,
    )  # fmt: skip
    table.finish()
    return spool


def _engine(name: str, table: SettingsTable) -> EngineSettings:
    if not is_engine_name(name):
        table.fail("", "an engine's name has letters, digits, . _ - only")
    kind = table.take("kind", str, needed=True) or ""
    cpus = table.take("cpus", int)
    if cpus is not None and not 0 <= cpus <= 10_000:
        table.fail("cpus", f"must be from 0 to 10000, not {_shown(cpus)}")
    return EngineSettings(name=name, kind=kind, cpus=cpus, options=table.rest(), where=table.where)


def _command(table: SettingsTable) -> tuple[str, ...]:
    run = table.take_words("run")
    if not run:
        table.fail("run", 'must be a list of strings, such as ["/bin/echo", "hello {param.who}"]')
    if run and not run[0].startswith("/"):
        table.fail("run", f"the program must be an absolute path, not {run[0]!r}")
    if run and "{param." in run[0]:
        table.fail("run", "the program itself cannot be a parameter")
    from orchestrator.spool.policy import PARAM  # which needs this module

    for word in (word for argument in run for word in _LIKE_PARAM.findall(argument)):
        if not PARAM.fullmatch(word):
            table.fail("run", f"{word!r} is not {{param.NAME}}, NAME of A-Za-z0-9_-")
    table.finish()
    return run or ()


def read_options(settings: EngineSettings, read: Callable[[SettingsTable], T]) -> T:
    """Let a kind of engine read its own keys with `read`; an unknown one is SettingsError."""
    file, _, path = settings.where.partition(": ")
    table = SettingsTable(file, path, settings.options)
    found = read(table)
    table._known += ["kind", "cpus"]
    table.finish()
    return found
