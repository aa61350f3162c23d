"""The settings file: what it means, and the one line that each mistake gives."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines.delphix.settings import DelphixSettings, read_settings
from orchestrator.errors import SettingsError
from orchestrator.settings import CONFIG_VARIABLE, Settings, find_settings, load_settings

Load = Callable[[str], Settings]

EXAMPLE = """
database = "sqlite:///orchestrator.db"
run_dir = "run"
log_dir = "log"

[spools.default]
path = "spool"
engines = ["engine1", "engine2"]
priority = 50
timeout = "4h"
shell_commands = false
observer = "auto"

[engines.engine1]
kind = "delphix"
url = "https://engine1.example.com/masking/api"
username = "orchestrator"
password = "env:ENGINE1_PASSWORD"
cpus = 4
verify = true
poll = "2s"

[engines.engine2]
kind = "delphix"
url = "https://engine2.example.com:8443/masking/api/"
username = "orchestrator"
password = "file:/run/secrets/engine2"

[engines.local]
kind = "command"
cpus = 2

[commands.greet]
run = ["/bin/echo", "hello {param.who}"]
"""
LEAST = '[spools.default]\npath = "spool"\n'


@pytest.fixture
def load(tmp_path: Path) -> Load:
    (tmp_path / "spool").mkdir()

    def loaded(text: str) -> Settings:
        (tmp_path / "orchestrator.toml").write_text(text, encoding="utf-8")
        return load_settings(tmp_path / "orchestrator.toml")

    return loaded


def test_the_example_of_the_documents_loads(load: Load, tmp_path: Path) -> None:
    settings = load(EXAMPLE)
    spool, engine1, local = settings.spools["default"], settings.engines["engine1"], settings.engines["local"]
    assert settings.database == f"sqlite:///{tmp_path}/orchestrator.db"
    assert (settings.run_dir, settings.log_dir) == (tmp_path / "run", tmp_path / "log")
    assert (spool.path, spool.engines) == (tmp_path / "spool", ("engine1", "engine2"))
    assert (spool.priority, spool.timeout, spool.shell_commands, spool.observer) == (50, 14400.0, False, "auto")
    assert (engine1.kind, engine1.cpus, local.kind, local.cpus) == ("delphix", 4, "command", 2)
    assert settings.commands == {"greet": ("/bin/echo", "hello {param.who}")}
    assert read_settings(engine1) == DelphixSettings(
        url="https://engine1.example.com/masking/api", username="orchestrator", password="env:ENGINE1_PASSWORD"
    )
    assert read_settings(settings.engines["engine2"]).url == "https://engine2.example.com:8443/masking/api"


def test_a_spool_is_all_that_must_be_set(load: Load, tmp_path: Path) -> None:
    settings = load(LEAST)
    spool = settings.spools["default"]
    assert (spool.engines, spool.priority, spool.timeout, spool.observer) == (None, 50, None, "auto")
    assert not spool.shell_commands
    assert (settings.engines, settings.commands) == ({}, {})
    assert (tmp_path / "run").is_dir()
    assert (tmp_path / "log").is_dir()


def test_relative_paths_are_relative_to_the_file_not_to_where_one_stands(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(LEAST)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = load_settings(Path("../orchestrator.toml"))
    assert settings.run_dir.resolve() == tmp_path / "run"
    assert settings.spools["default"].path.resolve() == tmp_path / "spool"
    assert not any((tmp_path / "elsewhere").iterdir())


def test_absolute_paths_stay_as_they_are(load: Load, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    settings = load(f'database = "sqlite:///{tmp_path}/data/o.db"\nrun_dir = "{tmp_path}/data/run"\n{LEAST}')
    assert settings.database == f"sqlite:///{tmp_path}/data/o.db"
    assert settings.run_dir == tmp_path / "data" / "run"


def test_directories_that_are_made_are_closed_to_other_users(load: Load) -> None:
    settings = load(LEAST)
    assert settings.run_dir.stat().st_mode & 0o077 == 0
    assert settings.log_dir.stat().st_mode & 0o077 == 0


def test_a_directory_that_another_program_makes_just_now_is_used(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_dir = Path.is_dir

    def made_after_the_look(path: Path) -> bool:
        found = is_dir(path)
        if path == tmp_path / "log" and not found:
            path.mkdir()
        return found

    monkeypatch.setattr(Path, "is_dir", made_after_the_look)
    assert load(LEAST).log_dir == tmp_path / "log"


MISTAKES: list[tuple[str, str]] = [
    ("this is not TOML", "not TOML"),
    ('colour = "red"\n' + LEAST, "colour: unknown key"),
    ('databas = "sqlite:///x"\n' + LEAST, "databas: unknown key (did you mean database?)"),
    (LEAST + "prioritty = 3", "spools.default.prioritty: unknown key (did you mean priority?)"),
    ('[commands.a]\nrum = ["/bin/true"]\n' + LEAST, "commands.a.run: must be a list of strings"),
    ('[commands.a]\nrun = ["/bin/true"]\nas = "root"\n' + LEAST, "commands.a.as: unknown key"),
    ("", "spools: no spool"),
    ("spools = 3", "spools: must be tables [spools.NAME]"),
    ("[spools]\ndefault = 3", "spools: 'default' must stand in a table [spools.NAME]"),
    ('[spools."a b"]\npath = "spool"', "spools: 'a b' is not a name"),
    ("[spools.default]", "spools.default.path: is missing"),
    ('[spools.default]\npath = "nowhere"', "spools.default.path: the directory is missing: "),
    ("[spools.default]\npath = 3", "spools.default.path: must be a string, not 3"),
    (LEAST + "priority = 101", "spools.default.priority: must be from 0 to 100, not 101"),
    (LEAST + "priority = true", "spools.default.priority: must be a whole number, not True"),
    (LEAST + 'timeout = "soon"', "spools.default.timeout: not a duration"),
    (LEAST + "timeout = 0", "spools.default.timeout: a duration must be above 0"),
    (LEAST + "timeout = true", "spools.default.timeout: must be a duration"),
    (LEAST + 'shell_commands = "yes"', "spools.default.shell_commands: must be true or false"),
    (LEAST + 'observer = "fsevents"', "spools.default.observer: must be auto, inotify or polling"),
    (LEAST + 'engines = "engine1"', "spools.default.engines: must be a list"),
    (LEAST + "engines = [1]", "spools.default.engines: must be a list of strings"),
    (LEAST + 'engines = ["engine9"]', "spools.default.engines: there is no [engines.engine9]"),
    ('database = "mysql://x"\n' + LEAST, "database: must be sqlite:///PATH"),
    ('database = "sqlite://x.db"\n' + LEAST, "database: must be sqlite:///PATH"),
    ('database = "sqlite:///nowhere/x.db"\n' + LEAST, "database: the directory is missing"),
    ('database = "postgresql://u:geheim@h/db"\n' + LEAST, "database: PostgreSQL is not supported yet"),
    ("database = 3\n" + LEAST, "database: must be a string, not 3"),
    ('run_dir = "a/b"\n' + LEAST, "run_dir: the directory is missing"),
    ('log_dir = "orchestrator.toml"\n' + LEAST, "log_dir: is not a directory: "),
    ('run_dir = "orchestrator.toml"\n' + LEAST, "run_dir: is not a directory: "),
    ('[spools.default]\npath = "orchestrator.toml"', "spools.default.path: is not a directory: "),
    ('[spools.default]\npath = ""', "spools.default.path: must not be empty"),
    ('run_dir = ""\n' + LEAST, "run_dir: must not be empty"),
    ('log_dir = ""\n' + LEAST, "log_dir: must not be empty"),
    ('database = "sqlite:///"\n' + LEAST, "database: must be sqlite:///PATH"),
    ('database = "sqlite:///spool"\n' + LEAST, "database: is a directory: "),
    ('database = "sqlite:///."\n' + LEAST, "database: is a directory: "),
    ("a = " + "[" * 3000, "not TOML: "),
    ("a = " + "1" * 5000, "not TOML: "),
    (LEAST + "priority = 0x" + "f" * 5000, "spools.default.priority: must be from 0 to 100"),
    (LEAST + "timeout = 0x" + "f" * 5000, "spools.default.timeout: "),
    (LEAST + "observer = 0x" + "f" * 5000, "spools.default.observer: must be a string"),
    (LEAST + '[engines.e]\nkind = "command"\ncpus = 0x' + "f" * 5000, "engines.e.cpus: must be from 0 to 10000"),
    (LEAST + "[engines.engine1]", "engines.engine1.kind: is missing"),
    (LEAST + '[engines."a@b"]\nkind = "command"', "engines.a@b: an engine's name has"),
    (LEAST + '[engines.e]\nkind = "command"\ncpus = -1', "engines.e.cpus: must be from 0 to 10000, not -1"),
    (LEAST + '[engines.e]\nkind = "command"\ncpus = 1.5', "engines.e.cpus: must be a whole number, not 1.5"),
    (LEAST + "[commands.a]\nrun = []", "commands.a.run: must be a list of strings"),
    (LEAST + '[commands.a]\nrun = ["echo"]', "commands.a.run: the program must be an absolute path"),
    (LEAST + '[commands.a]\nrun = ["/bin/{param.x}"]', "commands.a.run: the program itself cannot be a parameter"),
    *[
        (
            LEAST + f'[commands.a]\nrun = ["/bin/echo", "hello {wrong}"]',
            f"commands.a.run: {wrong!r} is not {{param.NAME}}",
        )
        for wrong in (
            "{param.}",
            "{param}",
            "{param.a b}",
            "{param.wh\u00f6}",
            "{params.who}",
            "{PARAM.who}",
            "{ param.who }",
            "{param.who",
        )
    ],
    (LEAST + '[spools.b]\npath = "../{here}/spool"', "spools.b.path: the same directory as spools.default.path"),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES)
def test_a_mistake_is_told_in_one_line_with_the_file_and_the_key(
    load: Load, tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(SettingsError) as mistake:
        load(text.replace("{here}", tmp_path.name))
    assert str(mistake.value).startswith(f"{tmp_path}/orchestrator.toml: {told}")
    assert "\n" not in str(mistake.value)
    assert "geheim" not in str(mistake.value)
    assert mistake.value.exit_status == 78


def test_other_braces_of_a_command_are_its_own(load: Load) -> None:
    run = ("/usr/bin/find", "{param.where}", "-exec", "awk", "{print $1}", "{}", ";", '{"param": 1}', "")
    settings = load(LEAST + f"[commands.a]\nrun = {json.dumps(run)}")
    assert settings.commands["a"] == run


def test_two_spools_on_one_directory_are_found_through_a_link(load: Load, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("spool")
    with pytest.raises(SettingsError, match=r"spools\.b\.path: the same directory as spools\.default"):
        load(LEAST + '[spools.b]\npath = "link"')


def test_a_file_that_cannot_be_read_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.toml: cannot be read: No such file"):
        load_settings(tmp_path / "nothing.toml")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)


def test_a_file_that_is_not_utf_8_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_bytes(b"database = '\xff'")
    with pytest.raises(SettingsError, match=r"o\.toml: not TOML: .*utf-8"):
        load_settings(tmp_path / "o.toml")


ENGINE = {"kind": '"delphix"', "url": '"https://e/masking/api"', "username": '"u"', "password": '"env:P"'}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("url", None, "url: is missing"),
        ("url", '"engine1"', "url: must be such as https://HOST/masking/api"),
        ("url", '"https://"', "url: must be such as"),
        ("url", '"https://[::1"', "url: must be such as"),
        ("url", '"https://e:port/masking/api"', "url: must be such as"),
        ("url", '"https://u:geheim@e/masking/api"', "url: must not hold credentials"),
        ("url", '"ftp://u:geheim@e/masking/api"', "url: must not hold credentials"),
        ("url", '"https://geheim@e/masking/api"', "url: must not hold credentials"),
        ("username", None, "username: is missing"),
        ("password", None, "password: is missing"),
        ("password", '"geheim"', "password: must be a reference (env:NAME, file:/path or keyring:service/user)"),
        ("password", '"file:geheim"', "password: the path after file: must be absolute"),
        ("password", '"file:"', "password: the path after file: must be absolute"),
        ("url", '"https://e/masking/api?x=1"', "url: must end with the path, without ? or #"),
        ("url", '"https://e/masking/api#x"', "url: must end with the path, without ? or #"),
        ("password", '"keyring:geheim"', "password: must be a reference"),
        ("password", '"env:"', "password: must be a reference"),
        ("password", '["geheim"]', "password: must be a"),
        ("verify", '"nowhere.pem"', "verify: the CA file is missing: nowhere.pem"),
        ("verify", "1", "verify: must be true or false or a string"),
        ("poll", '"often"', "poll: not a duration"),
        ("lost_start_wait", "[]", "lost_start_wait: must be a duration"),
        ("urll", '"x"', "urll: unknown key (did you mean url?)"),
    ],
)
def test_a_mistake_in_an_engines_own_keys_is_told_as_well(
    load: Load, tmp_path: Path, key: str, value: str | None, told: str
) -> None:
    lines = {name: given for name, given in {**ENGINE, key: value}.items() if given is not None}
    settings = load(LEAST + "[engines.e]\n" + "".join(f"{name} = {given}\n" for name, given in lines.items()))
    with pytest.raises(SettingsError) as mistake:
        read_settings(settings.engines["e"])
    assert str(mistake.value).startswith(f"{tmp_path}/orchestrator.toml: engines.e.{told}")
    assert "\n" not in str(mistake.value)
    assert "geheim" not in str(mistake.value)


def test_settings_are_looked_for_where_the_user_says_then_in_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.settings.CONFIG_PLACES", ("orchestrator.toml",))
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    with pytest.raises(SettingsError, match="--config"):
        find_settings(None)
    (tmp_path / "orchestrator.toml").touch()
    assert find_settings(None) == Path("orchestrator.toml")
    monkeypatch.setenv(CONFIG_VARIABLE, "b.toml")
    assert find_settings(None) == Path("b.toml")
    assert find_settings("c.toml") == Path("c.toml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_made_is_told(load: Load, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(SettingsError, match=r"run_dir: cannot make .*: Permission denied"):
        load('run_dir = "closed/run"\n' + LEAST)


@pytest.mark.parametrize("path", ["a" * 300, "a\\u0000b", "locked/spool", "file/spool"])
@pytest.mark.parametrize("key", ["spools.default.path", "run_dir", "log_dir", "database"])
def test_a_path_that_cannot_even_be_looked_at_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, path: str
) -> None:
    real = os.stat

    def stat(path: Any, *rest: Any, **options: Any) -> os.stat_result:
        if "locked/" in os.fsdecode(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **options)

    (tmp_path / "spool").mkdir()
    (tmp_path / "file").touch()
    spool = path if key == "spools.default.path" else "spool"
    more = "" if key == "spools.default.path" else f'{key} = "{path}"\n'
    if key == "database":
        more = f'database = "sqlite:///{path}/orchestrator.db"\n'
    file = tmp_path / "orchestrator.toml"
    file.write_text(f'{more}[spools.default]\npath = "{spool}"\n')
    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(SettingsError, match=rf"orchestrator.toml: {re.escape(key)}: "):
        load_settings(file)


def test_whoever_only_looks_makes_no_directory_and_misses_none(tmp_path: Path) -> None:
    file = tmp_path / "orchestrator.toml"
    file.write_text('database = "sqlite:///gone/o.db"\n[spools.default]\npath = "spool"\n')
    found = load_settings(file, look_only=True)

    assert (found.run_dir, found.spools["default"].path) == (tmp_path / "run", tmp_path / "spool")
    assert list(tmp_path.iterdir()) == [file]
    file.write_text('[spools.default]\npath = "spool"\nprioritee = 1\n')
    with pytest.raises(SettingsError, match="prioritee: unknown key"):
        load_settings(file, look_only=True)
