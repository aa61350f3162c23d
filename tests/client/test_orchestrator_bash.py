"""The shell client, in every shell it promises to run in, against a fake orchestrator."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

CLIENT = Path(__file__).resolve().parents[2] / "orchestrator" / "orchestrator.bash"
SHELLS = {
    "bash": ["bash"],
    "dash": ["dash"],
    "busybox sh": ["busybox", "sh"],
    "mksh": ["mksh"],
    "zsh": ["zsh"],
    "ksh": ["ksh"],
}
FORKLESS = [shell for shell in SHELLS if shell != "dash"]  # their read -t knows fractions
TOOLS = ["sh", "tr", "cut", "date", "mkfifo", "mv", "rm", "cat", "find", "sleep", "grep", "printf"]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,199}", re.ASCII)
PATIENCE = 15.0
T = TypeVar("T")
FAILED_7 = 'FAILED id=17 job=MASK_CRM engine=engine1 cpu=CPU2 execution=4711 exit=7 reason="rows rejected"\n'


def until(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        found = look()
        if found:
            return found
        time.sleep(0.002)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


@dataclass
class Taken:
    """A job file that the fake orchestrator has taken."""

    spool: Spool
    name: str
    text: str

    @property
    def keys(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.text.removesuffix("\n").split("\n"))

    @property
    def pid(self) -> int:
        return int(self.keys["pid"])

    @property
    def light(self) -> Path:
        return self.spool.light(self.name)

    def green(self) -> None:
        self.light.unlink()

    def red(self, text: str) -> None:
        new = self.spool.path / f".{self.name}.new"
        new.write_text(text)
        new.rename(self.light)


@dataclass
class Spool:
    """A spool directory, and the orchestrator that serves it."""

    path: Path

    def heartbeat(self, age: float = 0) -> None:
        file = self.path / ".heartbeat"
        file.touch()
        os.utime(file, (time.time() - age, time.time() - age))

    def light(self, name: str) -> Path:
        return self.path / f"{name}.trafficlight"

    def job_file(self) -> Path:
        return until(lambda: next(self.path.glob("*.job"), None), "a job file")

    def take(self) -> Taken:
        job = self.job_file()
        light = self.light(job.stem)
        assert light.exists(), "the job file came before its light"
        assert light.read_text() == ""
        claimed = job.rename(self.path / f".{job.stem}.claimed")
        text = claimed.read_text()
        claimed.unlink()
        return Taken(self, job.stem, text)

    def left(self) -> list[str]:
        return sorted(file.name for file in self.path.iterdir() if file.name != ".heartbeat")


@dataclass
class Ended:
    """How a client ended."""

    status: int
    out: str
    err: str


class Client:
    """One run of the client (or of a script that sources it)."""

    def __init__(self, command: list[str], spool: Path, env: dict[str, str], user: int | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "ORCHESTRATOR_SPOOL": str(spool), **env},
            user=user,
        )

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> Ended:
        out, err = self.process.communicate(timeout=PATIENCE)
        return Ended(self.process.returncode, out.decode(), err.decode())

    def still_waits(self, seconds: float = 0.2) -> bool:
        time.sleep(seconds)
        return self.process.poll() is None

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Bench:
    """One shell, one spool, and the clients started in it."""

    def __init__(self, shell: str, path: Path) -> None:
        if shutil.which(SHELLS[shell][0]) is None:
            pytest.skip(f"{shell} is not installed")
        path.mkdir(parents=True)
        self.shell = SHELLS[shell]
        self.spool = Spool(path)
        self.spool.heartbeat()
        self.clients: list[Client] = []

    def start(
        self,
        *args: str,
        file: Path = CLIENT,
        user: int | None = None,
        spool: Path | None = None,
        wrapper: tuple[str, ...] = (),
        **env: str,
    ) -> Client:
        command = [*wrapper, *self.shell, str(file), *args]
        client = Client(command, spool or self.spool.path, env, user)
        self.clients.append(client)
        return client

    def run(self, *args: str, **more: str) -> Ended:
        return self.start(*args, **more).ended()  # type: ignore[arg-type]

    def close(self) -> None:
        for client in self.clients:
            client.kill()


@pytest.fixture(autouse=True, scope="session")
def _signals_as_in_a_terminal() -> Iterator[None]:
    """A shell cannot trap what was ignored when it started, as in a test run in the background."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(params=SHELLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path / "spool")
    yield made
    made.close()


@pytest.fixture
def in_every_shell(tmp_path: Path) -> Iterator[Callable[[Callable[[Bench], None]], None]]:
    """Run a check in all shells at the same time, for checks that mostly wait."""
    benches: list[Bench] = []

    def run(check: Callable[[Bench], None]) -> None:
        installed = [shell for shell, words in SHELLS.items() if shutil.which(words[0])]
        made = {shell: Bench(shell, tmp_path / shell.replace(" ", "_") / "spool") for shell in installed}
        benches.extend(made.values())
        with ThreadPoolExecutor(len(made)) as pool:
            checks = {shell: pool.submit(check, one) for shell, one in made.items()}
        failed = {shell: repr(error) for shell, done in checks.items() if (error := done.exception())}
        assert not failed

    yield run
    for one in benches:
        one.close()


EveryShell = Callable[[Callable[[Bench], None]], None]


# --- how a job ends ---------------------------------------------------------------------------------------------


def test_a_finished_job_gives_0_in_silence_and_leaves_nothing_in_the_spool(bench: Bench) -> None:
    client = bench.start("MASK_CRM")
    taken = bench.spool.take()
    assert client.still_waits()
    taken.green()
    assert client.ended() == Ended(0, "", "")
    assert bench.spool.left() == []


RED = [
    (FAILED_7, 7),
    ("FAILED id=1 job=A exit=63\n", 63),
    ("FAILED id=1 exit=1 job=A", 1),
    ('FAILED id=1 job=A exit=64 reason=""\n', 1),
    ('FAILED id=1 job=A exit=0 reason=""\n', 1),
    ("FAILED id=1 job=A exit=09\n", 1),
    ("FAILED id=1 job=A exit=-3\n", 1),
    ("FAILED id=1 job=A exit=\n", 1),
    ("FAILED\n", 1),
    ('FAILED id=1 job=A reason="the engine said exit=9 twice"\n', 1),
    ('FAILED id=1 job=A exit=3 reason="then exit=9 reason=exit=8"\nexit=5\n', 3),
    ('REJECTED reason="line 2: priority: not a whole number"\nmore\nfor people\n', 65),
    ('CANCELLED id=1 job=A reason="exit=9"\n', 66),
    ('TIMEOUT id=1 job=A exit=9 reason=""\n', 124),
    ("TIMEOUT", 124),
    ("FINISHED id=1\n", 1),
    ("TIMEOUTS id=1\n", 1),
    ("\n", 1),
    (" \nFAILED exit=3\n", 1),
    ("-n exit=0\n", 1),
    ('FAILED id=$(touch ran) job=`touch ran` exit=4 reason="$(touch ran)`touch ran`; touch ran"\n', 4),
    ("FAILED * ? [a-z] ~ \\\\ %s exit=$(touch ran)\n", 1),
    ("FAILED id=1 job=" + "x" * 5000 + " exit=6\n", 6),
]


def test_each_red_light_gives_its_status_and_is_shown_whole_and_removed(bench: Bench) -> None:
    clients = {}
    for number in range(len(RED)):
        clients[number] = bench.start(f"JOB{number}")
    for _ in RED:
        taken = bench.spool.take()
        taken.red(RED[int(taken.keys["job"].removeprefix("JOB"))][0])
    for number, (text, status) in enumerate(RED):
        assert clients[number].ended() == Ended(status, "", text)
    assert bench.spool.left() == []
    assert not Path("ran").exists()


def test_sigquit_after_a_red_light_ends_the_wait_at_once(bench: Bench) -> None:
    client = bench.start("MASK_CRM")
    taken = bench.spool.take()
    assert client.still_waits(0.4)
    assert taken.pid == client.process.pid
    client.send(signal.SIGSTOP)  # so that only the signal can tell it
    taken.red(FAILED_7)
    client.send(signal.SIGQUIT)
    began = time.monotonic()
    client.send(signal.SIGCONT)
    assert client.ended() == Ended(7, "", FAILED_7)
    assert time.monotonic() - began < 0.6


def test_sigquit_without_a_word_in_the_light_gives_131_after_a_grace(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        client = bench.start("MASK_CRM")
        taken = bench.spool.take()
        time.sleep(0.1)
        client.send(signal.SIGQUIT)
        assert client.still_waits(1.8)
        ended = client.ended()
        assert (ended.status, ended.out) == (131, "")
        assert ended.err.startswith("orchestrator.bash: got QUIT")
        assert taken.light.exists()

    in_every_shell(check)


def test_a_word_that_comes_after_sigquit_still_counts(bench: Bench) -> None:
    client = bench.start("MASK_CRM")
    taken = bench.spool.take()
    time.sleep(0.1)
    client.send(signal.SIGQUIT)
    assert client.still_waits(0.2)
    taken.red(FAILED_7)
    assert client.ended().status == 7


def test_sigquit_and_a_vanished_light_give_131_and_never_green(bench: Bench) -> None:
    client = bench.start("MASK_CRM")
    taken = bench.spool.take()
    time.sleep(0.1)
    client.send(signal.SIGSTOP)
    taken.green()
    client.send(signal.SIGQUIT)
    client.send(signal.SIGCONT)
    ended = client.ended()
    assert ended.status == 131
    assert ended.err.count("\n") == 1


def test_only_removing_or_rewriting_the_light_releases(bench: Bench) -> None:
    client = bench.start("MASK_CRM")
    taken = bench.spool.take()
    for change in (taken.light.touch, lambda: taken.light.chmod(0o600), lambda: taken.light.write_text("")):
        change()
        assert client.still_waits(0.1)
    taken.light.rename(bench.spool.path / ".private.17")  # how the orchestrator may release, to know it afterwards
    assert client.ended().status == 0


def test_a_light_removed_while_the_job_file_still_stands_is_not_green(bench: Bench) -> None:
    client = bench.start("MASK_CRM")
    job = bench.spool.job_file()
    bench.spool.light(job.stem).unlink()
    assert client.still_waits()
    bench.spool.light(job.stem).touch()
    taken = bench.spool.take()
    assert client.still_waits()
    taken.green()
    assert client.ended().status == 0


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_light_that_went_with_its_whole_spool_is_not_green(bench: Bench, how: str) -> None:
    client = bench.start("MASK_CRM")
    bench.spool.take()
    time.sleep(0.1)
    client.send(signal.SIGSTOP)
    if how == "removed":
        shutil.rmtree(bench.spool.path)
    else:
        bench.spool.path.rename(bench.spool.path.with_name("elsewhere"))
        next(bench.spool.path.with_name("elsewhere").glob("*.trafficlight")).unlink()
        bench.spool.path.mkdir()
    client.send(signal.SIGCONT)
    ended = client.ended()
    assert ended.status == 69
    assert "was removed, moved or unmounted" in ended.err


def test_a_spool_that_is_moved_away_ends_the_wait_with_69(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        client = bench.start("MASK_CRM", ORCHESTRATOR_HEARTBEAT_EVERY="1")
        taken = bench.spool.take()
        bench.spool.path.rename(bench.spool.path.with_name("elsewhere"))
        ended = client.ended()
        assert (ended.status, ended.out) == (69, "")
        assert re.fullmatch(r"orchestrator\.bash: the spool \S+ was removed, moved or unmounted: .+\n", ended.err)
        assert (bench.spool.path.with_name("elsewhere") / taken.light.name).exists()

    in_every_shell(check)


def test_a_job_that_was_not_taken_is_withdrawn_from_a_spool_that_was_moved(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        client = bench.start("MASK_CRM", ORCHESTRATOR_HEARTBEAT_EVERY="1")
        bench.spool.job_file()
        elsewhere = bench.spool.path.with_name("elsewhere")
        bench.spool.path.rename(elsewhere)
        ended = client.ended()
        assert ended.status == 69
        assert "was removed, moved or unmounted: job MASK_CRM@" in ended.err
        assert "was withdrawn before it was taken" in ended.err
        assert Spool(elsewhere).left() == []

    in_every_shell(check)


def test_a_spool_that_comes_back_within_a_moment_is_waited_in(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        client = bench.start("MASK_CRM", ORCHESTRATOR_HEARTBEAT_EVERY="2")
        taken = bench.spool.take()
        elsewhere = bench.spool.path.with_name("elsewhere")
        bench.spool.path.rename(elsewhere)
        assert client.still_waits(2.2)  # the look after 2 s finds it gone
        elsewhere.rename(bench.spool.path)
        assert client.still_waits(2.2)  # and the next one finds it
        taken.green()
        assert client.ended() == Ended(0, "", "")

    in_every_shell(check)


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_a_signal_in_a_spool_that_was_moved_says_what_became_of_the_job(bench: Bench, taken: bool) -> None:
    client = bench.start("MASK_CRM")
    name = bench.spool.take().name if taken else bench.spool.job_file().stem
    elsewhere = bench.spool.path.with_name("elsewhere")
    bench.spool.path.rename(elsewhere)
    client.send(signal.SIGTERM)
    ended = client.ended()
    left = [file for file in Spool(elsewhere).left() if not file.startswith(".")]
    assert ended.status == 143
    if taken:
        assert "was removed, moved or unmounted" in ended.err
        assert f"job {name} was not cancelled" in ended.err
        assert left == [f"{name}.trafficlight"]
    else:
        assert f"job {name} was withdrawn" in ended.err
        assert left == []


def test_with_keep_a_signal_in_a_spool_that_was_moved_names_no_light_there(bench: Bench) -> None:
    client = bench.start("--keep", "MASK_CRM")
    bench.spool.take()
    bench.spool.path.rename(bench.spool.path.with_name("elsewhere"))
    client.send(signal.SIGTERM)
    ended = client.ended()
    assert ended.status == 143
    assert "its light is" not in ended.err
    assert "was removed, moved or unmounted" in ended.err


# --- the job file -----------------------------------------------------------------------------------------------


def test_options_and_pairs_become_lines_of_the_job_file(bench: Bench) -> None:
    client = bench.start(
        "-e",
        "PROD",
        "--priority=70",
        "-t",
        "30m",
        "--engine",
        "engine1,engine2",
        "--wait=60",
        "--",
        "MASK_CRM",
        "retries=1",
        "param.who=a b=c $HOME * 'x' \"y\" \\n %s",
    )
    taken = bench.spool.take()
    assert taken.text == (
        "job=MASK_CRM\nenvironment=PROD\npriority=70\ntimeout=30m\nengine=engine1,engine2\nretries=1\n"
        f"param.who=a b=c $HOME * 'x' \"y\" \\n %s\npid={client.process.pid}\n"
    )
    taken.green()
    assert client.ended().status == 0


ODD_JOBS = [
    "MASK CRM",
    "a/b/../c",
    "$(touch ran)`touch ran`;*?[x]",
    "größe\u2028",
    "'\"\\ %s\\n",
    ".hidden",
    "+plus",
    "@at@",
    "17",
    "x" * 500,
    "é" * 300,
]


def test_any_job_gets_a_name_of_the_alphabet_and_its_own_words_in_the_job_file(bench: Bench) -> None:
    clients = [bench.start(job) for job in ODD_JOBS]
    taken = {one.keys["job"]: one for one in (bench.spool.take() for _ in ODD_JOBS)}
    assert set(taken) == set(ODD_JOBS)
    for job, one in taken.items():
        assert NAME.fullmatch(one.name)
        stem, _, unique = one.name.rpartition("@")
        assert re.fullmatch(r"\d+-\d+-\d+", unique)
        expected = re.sub(rb"[^A-Za-z0-9._+-]", b"_", job.encode())[:160].decode()
        assert stem == (expected if re.match("[A-Za-z0-9_]", expected) else f"_{expected}")
        one.green()
    assert [client.ended() for client in clients] == [Ended(0, "", "")] * len(clients)
    assert not Path("ran").exists()


def test_a_job_that_begins_with_a_dash_comes_after_two_dashes(bench: Bench) -> None:
    client = bench.start("--", "-n")
    taken = bench.spool.take()
    assert taken.keys["job"] == "-n"
    assert taken.name.startswith("_-n@")
    taken.green()
    assert client.ended().status == 0


def test_a_spool_with_blanks_and_quotes_in_its_path_serves(bench: Bench, tmp_path: Path) -> None:
    odd = tmp_path / " sp ool 'a\" $HOME `x` \\ * é"
    odd.mkdir()
    spool = Spool(odd)
    spool.heartbeat()
    client = bench.start("-s", str(odd), "MASK_CRM", spool=Path("/nowhere"))
    spool.take().red(FAILED_7)
    assert client.ended() == Ended(7, "", FAILED_7)
    client = bench.start("MASK_CRM", spool=odd)
    spool.job_file()
    client.send(signal.SIGTERM)
    assert client.ended().status == 143
    assert spool.left() == []


def test_a_relative_spool_is_taken_from_where_the_caller_stands(bench: Bench, tmp_path: Path) -> None:
    inner = bench.spool.path / "inner"
    inner.mkdir()
    Spool(inner).heartbeat()
    script = tmp_path / "stand.sh"
    script.write_text(f'cd "{bench.spool.path}" && exec "$@"\n')
    client = bench.start("-s", "inner", "MASK_CRM", wrapper=("sh", str(script)), CDPATH="/:/tmp")
    Spool(inner).take().green()
    assert client.ended() == Ended(0, "", "")


def test_twenty_callers_at_once_get_twenty_names(bench: Bench) -> None:
    clients = [bench.start("MASK_CRM") for _ in range(20)]
    taken = [bench.spool.take() for _ in clients]
    assert len({one.name for one in taken}) == 20
    assert {one.pid for one in taken} == {client.process.pid for client in clients}
    for one in taken:
        one.green()
    assert [client.ended() for client in clients] == [Ended(0, "", "")] * 20
    assert bench.spool.left() == []


def test_an_existing_light_is_never_taken_over(bench: Bench, tmp_path: Path) -> None:
    wrapper = tmp_path / "first.sh"  # it knows the pid of the client before the client starts
    wrapper.write_text(
        "now=$(date +%s)\n"
        "for second in $now $((now + 1)) $((now + 2)); do\n"
        '    echo red > "$ORCHESTRATOR_SPOOL/A@$second-$$-1.trafficlight"\n'
        "done\n"
        'exec "$@"\n'
    )
    client = bench.start("A", wrapper=("sh", str(wrapper)))
    taken = bench.spool.take()
    assert taken.name.endswith(f"-{client.process.pid}-2")
    taken.green()
    assert client.ended() == Ended(0, "", "")
    assert [light.read_text() for light in bench.spool.path.glob("*.trafficlight")] == ["red\n"] * 3


def test_files_keep_the_mode_that_the_umask_of_the_user_gives(bench: Bench, tmp_path: Path) -> None:
    wrapper = tmp_path / "masked.sh"
    for mask, mode in (("022", 0o644), ("027", 0o640)):
        wrapper.write_text(f'umask {mask}; exec "$@"\n')
        client = bench.start("MASK_CRM", wrapper=("sh", str(wrapper)))
        job = bench.spool.job_file()
        assert job.stat().st_mode & 0o777 == mode
        taken = bench.spool.take()
        assert taken.light.stat().st_mode & 0o777 == mode
        taken.green()
        assert client.ended().status == 0


# --- wrong usage, no spool, giving up -----------------------------------------------------------------------------

WRONG = [
    [],
    [""],
    ["-x", "A"],
    ["-x"],
    ["--nonsense=1", "A"],
    ["--keep=yes", "A"],
    ["-s"],
    ["--wait"],
    ["-e", "", "A"],
    ["--priority=", "A"],
    ["--wait", "", "A"],
    ["--wait", "soon", "A"],
    ["--wait", "-1", "A"],
    ["--wait", "1.5", "A"],
    ["--wait", "010", "A"],
    ["--wait", "99999999999999999999", "A"],
    ["A", "pair"],
    ["A", "--keep"],
    ["A", "=x"],
    ["A", "#x=1"],
    ["A", "a b=1"],
    ["A", "x=1\ny=2"],
    ["A", "x\ny=2"],
    ["A", "x=\033[2J"],
    ["A\nB"],
    ["A\tB"],
    ["-e", "a\nb", "A"],
    ["-e", "a", "A", "environment=b"],
    ["-p", "1", "-p", "2", "A"],
    ["A", "x=1", "x=1"],
    ["A", "job=B"],
    ["A", "pid=2"],
    ["-\nx", "A"],
]


def test_wrong_usage_gives_64_and_one_line_and_submits_nothing(bench: Bench) -> None:
    for args in WRONG:
        ended = bench.run(*args)
        assert (ended.status, ended.out) == (64, ""), args
        assert re.fullmatch(r"orchestrator\.bash: [ -~]+\n", ended.err), args
    assert bench.spool.left() == []


def test_help_goes_to_stdout_with_the_table_of_statuses(bench: Bench) -> None:
    for option in ("-h", "--help"):
        ended = bench.run(option)
        assert (ended.status, ended.err) == (0, "")
        for status in ("0 ", "1 to 63", "64", "65", "66", "69", "75", "124", "129, 130, 143", "131"):
            assert f"\n  {status}" in ended.out


def test_without_a_spool_named_it_is_wrong_usage(bench: Bench) -> None:
    ended = bench.start("A", spool=Path(), ORCHESTRATOR_SPOOL="").ended()
    assert ended.status == 64
    assert "ORCHESTRATOR_SPOOL" in ended.err


def test_a_spool_that_is_missing_or_no_directory_gives_69(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        ended = bench.run("-s", str(path), "A")
        assert (ended.status, ended.out) == (69, "")
        assert ended.err.startswith("orchestrator.bash: no spool directory at ")
        assert ended.err.count("\n") == 1


def test_a_spool_that_the_caller_may_not_write_gives_69(bench: Bench) -> None:
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as directory:  # tmp_path is closed to others
        Path(directory).chmod(0o555)
        client = Path(directory).with_name(f"{Path(directory).name}.orchestrator.bash")
        shutil.copy(CLIENT, client)
        client.chmod(0o755)
        try:
            ended = bench.start("A", file=client, spool=Path(directory), user=user).ended()
        finally:
            client.unlink()
            Path(directory).chmod(0o755)
    assert ended.status == 69
    assert re.fullmatch(r"orchestrator\.bash: cannot write to the spool .+\n", ended.err)


def test_wait_gives_up_with_75_not_too_early_and_the_job_goes_on(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        began = time.monotonic()
        client = bench.start("--wait", "1", "MASK_CRM")
        taken = bench.spool.take()
        ended = client.ended()
        assert 1 <= time.monotonic() - began < 4
        assert (ended.status, ended.out) == (75, "")
        assert str(taken.light) in ended.err
        assert bench.spool.left() == [taken.light.name]

    in_every_shell(check)


def test_wait_0_submits_and_gives_up_at_once(bench: Bench) -> None:
    assert bench.run("--wait", "0", "MASK_CRM").status == 75
    taken = bench.spool.take()
    assert bench.spool.left() == [taken.light.name]


# --- signals ------------------------------------------------------------------------------------------------------

SIGNALS = [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_withdraws_a_job_that_was_not_taken(bench: Bench, number: signal.Signals, status: int) -> None:
    client = bench.start("MASK_CRM")
    bench.spool.job_file()
    client.send(number)
    ended = client.ended()
    assert ended.status == status
    assert re.fullmatch(r"orchestrator\.bash: .* withdrawn .*\n", ended.err)
    assert bench.spool.left() == []


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_cancels_a_job_that_was_taken(bench: Bench, number: signal.Signals, status: int) -> None:
    client = bench.start("MASK_CRM")
    taken = bench.spool.take()
    assert client.still_waits(0.2)
    began = time.monotonic()
    client.send(number)
    ended = client.ended()
    assert time.monotonic() - began < 1
    assert ended.status == status
    assert bench.spool.left() == [f"{taken.name}.cancel"]
    assert (bench.spool.path / f"{taken.name}.cancel").read_text() == ""


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_with_keep_a_signal_leaves_job_and_light(bench: Bench, number: signal.Signals, status: int) -> None:
    client = bench.start("--keep", "MASK_CRM")
    name = bench.spool.job_file().stem
    client.send(number)
    ended = client.ended()
    assert ended.status == status
    assert "--keep" in ended.err
    assert bench.spool.left() == [f"{name}.job", f"{name}.trafficlight"]


def test_a_job_that_ended_before_the_signal_was_seen_gives_its_own_status(bench: Bench) -> None:
    client = bench.start("MASK_CRM")
    taken = bench.spool.take()
    time.sleep(0.1)
    client.send(signal.SIGSTOP)
    taken.red(FAILED_7)
    client.send(signal.SIGTERM)
    client.send(signal.SIGCONT)
    assert client.ended().status == 7
    assert bench.spool.left() == []


def test_under_nohup_a_hangup_changes_nothing(bench: Bench) -> None:
    if bench.shell == ["zsh"]:
        pytest.skip("zsh traps even what was ignored when it started")
    client = bench.start("MASK_CRM", wrapper=("sh", "-c", "trap '' HUP; exec \"$@\"", "sh"))
    taken = bench.spool.take()
    time.sleep(0.1)
    client.send(signal.SIGHUP)
    assert client.still_waits(0.2)
    taken.green()
    assert client.ended().status == 0


def test_a_killed_caller_leaves_nothing_that_another_could_take_for_its_own(bench: Bench) -> None:
    killed = bench.start("MASK_CRM")
    left = bench.spool.take()
    killed.send(signal.SIGKILL)
    assert killed.ended().status == -signal.SIGKILL
    assert [file for file in bench.spool.left() if not file.startswith(".")] == [left.light.name]
    client = bench.start("MASK_CRM")
    taken = bench.spool.take()
    assert taken.name != left.name
    left.red(FAILED_7)
    assert client.still_waits()
    taken.green()
    assert client.ended() == Ended(0, "", "")
    assert left.light.read_text() == FAILED_7


# --- the wait itself ------------------------------------------------------------------------------------------------


def _tools(tmp_path: Path, *more: str) -> Path:
    """A PATH with nothing but what the client names."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in (*TOOLS, *more):
        found = shutil.which(tool)
        assert found, tool
        (tools / tool).symlink_to(found)
    return tools


def _stat(pid: int) -> list[int]:
    """From utime on in /proc/PID/stat, with cminflt first: page faults of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return [int(fields[8]), *(int(field) for field in fields[11:15])]


@pytest.mark.parametrize("bench", FORKLESS, indirect=True)
def test_waiting_starts_no_process_where_read_knows_fractions(bench: Bench, tmp_path: Path) -> None:
    tools = _tools(tmp_path)
    bench.shell = [shutil.which(bench.shell[0]) or "", *bench.shell[1:]]
    client = bench.start("MASK_CRM", PATH=str(tools))
    taken = bench.spool.take()
    time.sleep(0.1)
    for tool in tools.iterdir():
        tool.unlink()
    before = _stat(client.process.pid)[0]
    assert client.still_waits(0.3)
    assert _stat(client.process.pid)[0] == before
    taken.green()
    assert client.ended() == Ended(0, "", "")


def test_waiting_takes_next_to_no_processor_time(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        client = bench.start("MASK_CRM")
        taken = bench.spool.take()
        time.sleep(0.5)
        before = sum(_stat(client.process.pid)[1:])
        assert client.still_waits(1.5)
        ticks = sum(_stat(client.process.pid)[1:]) - before
        assert ticks / os.sysconf("SC_CLK_TCK") < 0.15
        taken.green()
        assert client.ended().status == 0

    in_every_shell(check)


@pytest.mark.parametrize("inotifywait", ["missing", "broken"])
def test_dash_waits_without_inotifywait_too(tmp_path: Path, inotifywait: str) -> None:
    bench = Bench("dash", tmp_path / "spool")
    tools = _tools(tmp_path)
    if inotifywait == "broken":  # as where no watches are left
        (tools / "inotifywait").write_text(f"#!/bin/sh\necho x >> '{tmp_path}/asked'; exit 1\n")
        (tools / "inotifywait").chmod(0o755)
    bench.shell = [shutil.which("dash") or ""]
    try:
        client = bench.start("MASK_CRM", PATH=str(tools))
        taken = bench.spool.take()
        assert client.still_waits(0.5)
        taken.green()
        assert client.ended() == Ended(0, "", "")
        client = bench.start("MASK_CRM", PATH=str(tools))
        taken = bench.spool.take()
        time.sleep(0.3)
        client.send(signal.SIGTERM)
        assert client.ended().status == 143
        if inotifywait == "broken":
            assert (tmp_path / "asked").read_text() == "x\nx\n"
    finally:
        bench.close()


# --- the heartbeat --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [None, 190])
def test_a_job_that_nobody_takes_is_withdrawn_with_69(in_every_shell: EveryShell, age: float | None) -> None:
    def check(bench: Bench) -> None:
        (bench.spool.path / ".heartbeat").unlink()
        if age is not None:
            bench.spool.heartbeat(age)
        ended = bench.run("MASK_CRM", ORCHESTRATOR_HEARTBEAT_GRACE="1")
        assert ended.status == 69
        said = ended.err.splitlines()
        assert len(said) == 2
        assert said[0].startswith(f"orchestrator.bash: nothing serves {bench.spool.path} (no heartbeat for 3 min")
        assert "withdrawn" in said[1]
        assert bench.spool.left() == []

    in_every_shell(check)


def test_a_heartbeat_under_three_minutes_old_is_good(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        bench.spool.heartbeat(170)
        client = bench.start("MASK_CRM", ORCHESTRATOR_HEARTBEAT_GRACE="0")
        assert client.still_waits(2.5)
        bench.spool.take().green()
        assert client.ended() == Ended(0, "", "")

    in_every_shell(check)


def test_a_job_that_ends_soon_is_not_troubled_by_a_heartbeat_that_is_still_to_come(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        (bench.spool.path / ".heartbeat").unlink()
        client = bench.start("MASK_CRM", ORCHESTRATOR_HEARTBEAT_GRACE="0")
        taken = bench.spool.take()
        assert client.still_waits(0.5)
        taken.red(FAILED_7)
        assert client.ended() == Ended(7, "", FAILED_7)

    in_every_shell(check)


def test_a_heartbeat_that_comes_back_within_the_grace_lets_the_job_go_on(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        bench.spool.heartbeat(1000)
        client = bench.start("MASK_CRM", ORCHESTRATOR_HEARTBEAT_GRACE="5")
        bench.spool.job_file()
        assert client.still_waits(3)
        bench.spool.heartbeat()
        assert client.still_waits(4)
        bench.spool.take().green()
        ended = client.ended()
        assert ended.status == 0
        assert "served again" in ended.err

    in_every_shell(check)


def test_a_heartbeat_that_stops_during_the_wait_withdraws_a_job_not_taken(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        client = bench.start("MASK_CRM", ORCHESTRATOR_HEARTBEAT_GRACE="0", ORCHESTRATOR_HEARTBEAT_EVERY="1")
        bench.spool.job_file()
        time.sleep(0.3)
        bench.spool.heartbeat(181)
        assert client.ended().status == 69
        assert bench.spool.left() == []

    in_every_shell(check)


def test_a_job_that_was_taken_is_waited_for_without_a_heartbeat_too(in_every_shell: EveryShell) -> None:
    def check(bench: Bench) -> None:
        client = bench.start("MASK_CRM", ORCHESTRATOR_HEARTBEAT_GRACE="0", ORCHESTRATOR_HEARTBEAT_EVERY="1")
        taken = bench.spool.take()
        time.sleep(0.3)
        bench.spool.heartbeat(181)
        assert client.still_waits(2.5)
        taken.red(FAILED_7)
        ended = client.ended()
        assert ended.status == 7
        assert ended.err.count("no heartbeat") == 1

    in_every_shell(check)


# --- sourced --------------------------------------------------------------------------------------------------------


def _script(tmp_path: Path, text: str) -> Path:
    """A caller's script, which sources the client."""
    script = tmp_path / "caller.sh"
    script.write_text(f". '{CLIENT}'\n{text}")
    return script


def test_sourced_it_runs_a_job_and_leaks_nothing_into_the_callers_shell(bench: Bench, tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        """
        set -eu
        trap 'echo mine' TERM
        IFS=x light=mine signal=mine LC_ALL=POSIX
        traps=$(trap) flags=$- directory=$PWD
        status_of() { "$@" && rc=0 || rc=$?; }
        status_of orchestrator_run -e PROD MASK_CRM param.a=b
        echo "$rc"
        [ "$IFS$light$signal$LC_ALL" = xmineminePOSIX ] || echo variables leak
        [ "$traps" = "$(trap)" ] || echo traps leak
        [ "$flags" = "$-" ] || echo options leak
        [ "$directory" = "$PWD" ] || echo directory leaks
        (: <&9) 2>/dev/null && echo descriptor leaks
        echo "$$"
        """,
    )
    client = bench.start(file=script)
    taken = bench.spool.take()
    assert taken.text == f"job=MASK_CRM\nenvironment=PROD\nparam.a=b\npid={taken.pid}\n"
    assert taken.pid != client.process.pid, "a late SIGQUIT would hit the caller's shell"
    assert client.still_waits()
    os.kill(taken.pid, signal.SIGSTOP)
    taken.red(FAILED_7)
    os.kill(taken.pid, signal.SIGQUIT)
    os.kill(taken.pid, signal.SIGCONT)
    assert client.ended() == Ended(0, f"7\n{client.process.pid}\n", FAILED_7)
    assert bench.spool.left() == []


def test_sourced_it_submits_now_and_waits_later(bench: Bench, tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        """
        one=$(orchestrator_submit ONE retries=1) || exit
        orchestrator_submit TWO >/dev/null || exit
        echo "$one"
        echo "$ORCHESTRATOR_NAME"
        orchestrator_wait "$one"
        echo "$?"
        orchestrator_wait --wait 30 "$ORCHESTRATOR_NAME"
        echo "$?"
        """,
    )
    client = bench.start(file=script)
    taken = {one.keys["job"]: one for one in (bench.spool.take(), bench.spool.take())}
    assert taken["ONE"].text == "job=ONE\nretries=1\n"
    taken["TWO"].red(FAILED_7)
    assert client.still_waits(0.2)
    taken["ONE"].green()
    names = f"{taken['ONE'].name}\n{taken['TWO'].name}\n"
    assert client.ended() == Ended(0, f"{names}0\n7\n", FAILED_7)
    assert bench.spool.left() == []


def test_sourced_it_cancels_what_was_not_taken_and_turns_its_light_red(bench: Bench, tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        """
        name=$(orchestrator_submit MASK_CRM) || exit
        orchestrator_cancel "$name"
        echo "$?"
        orchestrator_wait "$name"
        echo "$?"
        """,
    )
    ended = bench.start(file=script).ended()
    assert (ended.status, ended.out) == (0, "0\n66\n")
    assert ended.err == 'CANCELLED job=MASK_CRM reason="withdrawn before it was taken"\n'
    assert bench.spool.left() == []


def test_sourced_it_asks_to_cancel_what_was_taken_and_leaves_the_light_to_the_waiter(
    bench: Bench, tmp_path: Path
) -> None:
    waiter = bench.start("MASK_CRM")
    taken = bench.spool.take()
    ended = bench.start(file=_script(tmp_path, f"orchestrator_cancel {taken.name}")).ended()
    assert ended == Ended(0, "", "")
    assert bench.spool.left() == [f"{taken.name}.cancel", taken.light.name]
    (bench.spool.path / f"{taken.name}.cancel").unlink()
    taken.red("CANCELLED id=1\n")
    assert waiter.ended().status == 66


def test_sourced_it_cannot_cancel_what_is_not_there_or_has_ended(bench: Bench, tmp_path: Path) -> None:
    bench.spool.light("ended").write_text(FAILED_7)
    script = _script(tmp_path, 'for name in nosuch ended; do orchestrator_cancel "$name"; echo "$?"; done')
    ended = bench.start(file=script).ended()
    assert (ended.status, ended.out) == (0, "1\n1\n")
    assert ended.err.count("nothing to cancel") == 2
    assert bench.spool.left() == ["ended.trafficlight"]


def test_sourced_a_signal_to_the_waiting_process_cancels_and_the_caller_goes_on(bench: Bench, tmp_path: Path) -> None:
    client = bench.start(file=_script(tmp_path, 'orchestrator_run MASK_CRM\necho "$?"'))
    taken = bench.spool.take()
    assert client.still_waits(0.2)
    os.kill(taken.pid, signal.SIGTERM)
    ended = client.ended()
    assert (ended.status, ended.out) == (0, "143\n")
    assert bench.spool.left() == [f"{taken.name}.cancel"]


def test_sourced_wrong_usage_and_a_missing_spool_are_returned(bench: Bench, tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        """
        for call in orchestrator_run orchestrator_submit orchestrator_wait orchestrator_cancel; do
            "$call" 2>/dev/null; printf '%s ' "$?"
            "$call" -s /missing A 2>/dev/null; printf '%s ' "$?"
        done
        for name in '' .hidden a/b 'a b' "$(printf '%0201d' 0)"; do
            orchestrator_wait "$name" 2>/dev/null; printf '%s ' "$?"
        done
        """,
    )
    assert bench.start(file=script).ended() == Ended(0, "64 69 " * 4 + "64 " * 5, "")
    assert bench.spool.left() == []


@pytest.mark.parametrize("name", ["orchestrator.bash", "mask"])
def test_under_any_name_a_run_is_a_run(bench: Bench, tmp_path: Path, name: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).symlink_to(CLIENT)
    for file in (tmp_path / "bin" / name, CLIENT):
        assert bench.run("--nonsense", file=file).status == 64  # type: ignore[arg-type]
    if bench.shell[0] in ("bash", "ksh"):  # these look for a script in PATH
        path = f"{os.environ['PATH']}:{tmp_path / 'bin'}"
        assert bench.run("--nonsense", file=Path(name), PATH=path).status == 64  # type: ignore[arg-type]


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, "-s", "sh", str(CLIENT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
