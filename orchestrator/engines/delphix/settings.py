"""The keys of an engine of kind delphix. Apart from the client, so that a check of the settings loads no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from orchestrator.engines.secret import FORMS, is_reference
from orchestrator.settings import EngineSettings, SettingsTable, read_options

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte
ANSWER_TIMEOUT = 60.0  # seconds for a whole answer
START_LEAVES = 15.0  # seconds within which a start is sent, or not at all
START_TAKES = START_LEAVES + CONNECT_TIMEOUT + ANSWER_TIMEOUT  # seconds from the intent until its answer is given up


@dataclass(frozen=True, kw_only=True)
class DelphixSettings:
    """The keys of an engine of kind delphix."""

    url: str
    username: str
    password: str  # a reference, see engines/secret.py
    verify: bool | str = True  # or the path of a CA file
    poll: float = 2.0  # seconds: the longest between two looks at a running job
    lost_start_wait: float = 5.0  # seconds after a start was lost: what the engine does not show by then never comes
    crashed_start_wait: float = START_TAKES + 5.0  # seconds, the same where the process that started was killed


def read_settings(settings: EngineSettings) -> DelphixSettings:
    """Check the table of an engine. Raises SettingsError."""
    return read_options(settings, _read)


def _read(table: SettingsTable) -> DelphixSettings:
    url = (table.take("url", str, needed=True) or "").rstrip("/")
    if "@" in url:
        table.fail("url", "must not hold credentials: set username and password")
    try:
        parts = urlsplit(url)
        sensible = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an address
        sensible = False
    if not sensible:
        table.fail("url", f"must be such as https://HOST/masking/api, not {url!r}")
    if "?" in url or "#" in url:  # paths are added to its end
        table.fail("url", f"must end with the path, without ? or #, not {url!r}")
    password = table.take("password", str, needed=True) or ""
    if password.startswith("file:") and not password.startswith("file:/"):
        table.fail("password", "the path after file: must be absolute, as in file:/path")
    if not is_reference(password):
        table.fail("password", f"must be a reference ({FORMS}), never the password itself")
    verify = table.take_one_of("verify", (bool, str), True)
    if isinstance(verify, str) and not Path(verify).is_file():
        table.fail("verify", f"the CA file is missing: {verify}")
    return DelphixSettings(
        url=url,
        username=table.take("username", str, needed=True) or "",
        password=password,
        verify=cast("bool | str", verify),
        poll=table.take_seconds("poll", 2.0),
        lost_start_wait=table.take_seconds("lost_start_wait", 5.0),
        crashed_start_wait=table.take_seconds("crashed_start_wait", START_TAKES + 5.0),
    )
