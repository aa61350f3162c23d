"""Commands: their words, their exit status, their environment, and what reaches a shell."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clock import tick
from orchestrator.engines import command as command_module
from orchestrator.engines.base import Ended, Knows, Running
from orchestrator.engines.command import CommandEngine
from orchestrator.errors import EngineDown, SettingsError, StartRefused
from orchestrator.job import Job
from orchestrator.state import JobStatus

from .make import SECRET, a_job, engine_settings, intended, settings_in

SHOW = ["/bin/sh", "-c", 'for_each() { for each in "$@"; do printf "[%s]" "$each"; done; }; for_each "$@"']
COMMANDS = {
    "true": ("/bin/true",),
    "show": (*SHOW, "show", "{param.x}", "a {param.x} b", "fixed"),
    "missing": ("/nowhere/at/all",),
}
PLACE = {"engine": "engine1", "cpu": "CPU1"}
Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[CommandEngine]:
    for name in ("run", "log"):
        (tmp_path / name).mkdir()
    made = CommandEngine(engine_settings("command"), settings_in(tmp_path, **COMMANDS))
    made.describe()
    yield made
    for file in filter(Path.is_file, (tmp_path / "run" / "commands").iterdir()):
        execution = file.read_text().partition("\n")[0].removeprefix("attempt ")
        made.cancel(a_job(**PLACE, execution=execution, ending="CANCELLED", ending_tick="another-boot 0.0",
                          submitted_at="1999-01-01T00:00:00.000000Z"))  # fmt: skip
    made.close()


def start(engine: CommandEngine, **fields: Any) -> Job:
    job = intended("", **{"shell": True, **PLACE} | fields)
    return a_job(**vars(job) | {"status": "RUNNING", "execution": engine.start(job)})


def configured(engine: CommandEngine, command: str, **params: str) -> Job:
    return start(engine, command=command, shell=False, params=json.dumps(params))


def end_of(engine: CommandEngine, job: Job) -> Ended:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = engine.check([job])[job.id]
        if isinstance(state, Ended):
            return state
        time.sleep(0.005)
    raise AssertionError("it never ended")


def cpu_file(folder: Path) -> Path:
    """Give the path of the file of CPU1; its folder is made."""
    file = folder / "run" / "commands" / "engine1.CPU1"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def output(tmp_path: Path) -> str:
    return (tmp_path / "log" / "jobs" / "1-MASK_CRM.log").read_text()


@pytest.mark.parametrize(("line", "status"), [("true", 0), ("exit 1", 1), ("exit 63", 63), ("exit 255", 255)])
def test_the_exit_status_arrives(engine: CommandEngine, line: str, status: int) -> None:
    ended = end_of(engine, start(engine, command=line))
    assert (ended.exit_status, ended.status is JobStatus.FINISHED) == (status, status == 0)
    assert (ended.reason is None) == (status == 0)


def test_a_command_killed_by_a_signal_is_told_so(engine: CommandEngine) -> None:
    ended = end_of(engine, start(engine, command="kill -9 $$"))
    assert (ended.status, ended.exit_status) == (JobStatus.FAILED, 137)
    assert ended.reason == "exit status 137 (signal 9)"


def test_a_command_that_is_not_there_fails_as_in_a_shell(engine: CommandEngine, tmp_path: Path) -> None:
    assert end_of(engine, configured(engine, "missing")).exit_status == 127
    assert output(tmp_path) == "orchestrator: /nowhere/at/all: No such file or directory\n"


def test_a_shell_line_is_one_with_all_that_a_shell_can(engine: CommandEngine, tmp_path: Path) -> None:
    end_of(engine, start(engine, command="for i in 1 2; do echo $i; done | sort -r; echo to stderr >&2"))
    assert output(tmp_path) == "2\n1\nto stderr\n"


@pytest.mark.parametrize(
    "value",
    [
        "two words",
        "'",
        '"',
        "a;b",
        "$(touch /tmp/x)",
        "`id`",
        "$HOME",
        "*",
        "\\",
        "a\tb",
        "",
        "é",
        "{param.x}",
        "%s",
        "#",
    ],
)
def test_a_parameter_is_one_argument_and_reaches_no_shell(engine: CommandEngine, tmp_path: Path, value: str) -> None:
    assert end_of(engine, configured(engine, "show", x=value)).status is JobStatus.FINISHED
    assert output(tmp_path) == f"[{value}][a {value} b][fixed]"


def test_a_parameter_cannot_become_an_option(engine: CommandEngine) -> None:
    with pytest.raises(StartRefused, match="begins with '-'"):
        configured(engine, "show", x="-rf")


def test_a_parameter_that_is_missing_is_told(engine: CommandEngine) -> None:
    with pytest.raises(StartRefused, match=r"param\.x is missing"):
        configured(engine, "show", y="1")


def test_a_command_that_is_not_configured_is_refused_and_not_taken_for_a_shell_line(
    engine: CommandEngine, tmp_path: Path
) -> None:
    with pytest.raises(StartRefused, match="is configured"):
        configured(engine, f"touch {tmp_path}/made")
    assert not (tmp_path / "made").exists()


def test_nothing_of_the_daemons_environment_reaches_a_command(
    engine: CommandEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE1_PASSWORD", SECRET)
    monkeypatch.setenv("LD_PRELOAD_TEST", "x")
    end_of(engine, start(engine, command="env; cat /proc/$PPID/environ | tr '\\0' '\\n'"))
    told = output(tmp_path)
    assert "ORCHESTRATOR_NAME=MASK_CRM" in told
    assert "ORCHESTRATOR_ID=1\n" in told
    assert SECRET not in told
    assert "LD_PRELOAD_TEST" not in told
    names = {line.partition("=")[0] for line in told.splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "ORCHESTRATOR_JOB", "ORCHESTRATOR_NAME", "ORCHESTRATOR_ID",
    }  # fmt: skip


def test_a_command_has_no_input_and_no_open_files_of_the_daemon(engine: CommandEngine, tmp_path: Path) -> None:
    kept = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(kept, True)
    end_of(engine, start(engine, command="cat; ls /proc/self/fd"))
    os.close(kept)
    assert output(tmp_path).split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads


OURS = (signal.SIGIO, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # which the programs ignore or block


def test_a_command_has_no_signal_blocked_or_ignored_whatever_the_daemon_has(
    engine: CommandEngine, tmp_path: Path
) -> None:
    ignored = signal.signal(signal.SIGIO, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, OURS[1:])
    end_of(engine, start(engine, command="grep -E 'Sig(Blk|Ign)' /proc/self/status"))
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    signal.signal(signal.SIGIO, ignored)
    _, blocked_there, _, ignored_there = output(tmp_path).split()
    assert int(blocked_there, 16) == 0
    assert int(ignored_there, 16) & sum(1 << number - 1 for number in OURS) == 0


def test_a_command_that_put_nothing_out_leaves_no_file_and_its_light_says_so(
    engine: CommandEngine, tmp_path: Path
) -> None:
    assert end_of(engine, start(engine, command="exit 1")).detail == "output: none"
    assert not (tmp_path / "log" / "jobs" / "1-MASK_CRM.log").exists()
    ended = end_of(engine, start(engine, id=2, command="echo two; exit 1"))
    assert ended.detail == f"output: {tmp_path}/log/jobs/2-MASK_CRM.log"


def test_what_a_command_leaves_running_writes_to_no_other_jobs_output(
    engine: CommandEngine, tmp_path: Path, eventually: Wait
) -> None:
    end_of(engine, start(engine, command=f"(until [ -e {tmp_path}/go ]; do sleep 0.01; done; echo late) &"))
    end_of(engine, start(engine, id=2, command=f"touch {tmp_path}/go; sleep 0.2"))
    eventually(lambda: output(tmp_path) == "late\n")
    assert not (tmp_path / "log" / "jobs" / "2-MASK_CRM.log").exists()


@pytest.mark.parametrize(
    ("mode", "status", "told"), [(0o755, 5, "from a script\n"), (0o644, 126, "orchestrator: {}: Permission denied\n")]
)
def test_a_script_without_an_interpreter_is_run_by_a_shell_and_one_that_may_not_run_is_told(
    tmp_path: Path, mode: int, status: int, told: str
) -> None:
    script = tmp_path / "script"
    script.write_text("echo from a script\nexit 5\n")
    script.chmod(mode)
    for name in ("run", "log"):
        (tmp_path / name).mkdir()
    engine = CommandEngine(engine_settings("command"), settings_in(tmp_path, script=(str(script),)))
    engine.describe()
    assert end_of(engine, configured(engine, "script")).exit_status == status
    assert output(tmp_path) == told.format(script)
    engine.close()


def test_output_of_a_second_attempt_follows_that_of_the_first(engine: CommandEngine, tmp_path: Path) -> None:
    end_of(engine, start(engine, command="echo one"))
    end_of(engine, start(engine, command="echo two", attempts=2))
    assert output(tmp_path) == "one\ntwo\n"


def test_output_does_not_follow_a_link_that_somebody_put_there(engine: CommandEngine, tmp_path: Path) -> None:
    (tmp_path / "log" / "jobs" / "1-MASK_CRM.log").symlink_to(tmp_path / "victim")
    with pytest.raises(StartRefused, match="cannot be started"):
        start(engine, command="echo x")
    assert not (tmp_path / "victim").exists()


def test_it_runs_what_is_configured_and_what_policy_allowed_and_no_masking_jobs(engine: CommandEngine) -> None:
    assert engine.lookup(a_job(command="true")).knows is Knows.YES
    assert engine.lookup(a_job(command="echo x", shell=True)).knows is Knows.YES
    assert engine.lookup(a_job(command="echo x")).knows is Knows.NO
    assert engine.lookup(a_job()).knows is Knows.NO


def wakes(engine: CommandEngine) -> bool:
    """Tell whether there is anything for which the engine's thread would not sleep now."""
    return bool(select.select(list(engine.wait_fds()), [], [], 0)[0])


def test_a_running_command_can_be_waited_for(engine: CommandEngine, tmp_path: Path) -> None:
    job = start(engine, command=f"until [ -e {tmp_path}/go ]; do sleep 0.01; done")
    assert engine.check([job]) == {1: Running()}
    (fd,) = engine.wait_fds()
    (tmp_path / "go").touch()
    assert select.select([fd], [], [], 10)[0] == [fd]
    assert end_of(engine, job).status is JobStatus.FINISHED
    engine.forget(job)
    assert not wakes(engine)


def test_an_end_that_nobody_asks_about_wakes_once_and_no_more(engine: CommandEngine, tmp_path: Path) -> None:
    """Another program on the same database may have recorded it."""
    start(engine, command=f"until [ -e {tmp_path}/go ]; do sleep 0.01; done")
    (fd,) = engine.wait_fds()
    (tmp_path / "go").touch()
    assert select.select([fd], [], [], 10)[0] == [fd]
    engine.linger()
    assert not wakes(engine)


def test_the_end_of_a_command_can_be_asked_for_again(engine: CommandEngine) -> None:
    job = start(engine, command="exit 3")
    assert end_of(engine, job) == end_of(engine, job)
    assert not wakes(engine)


def test_a_cpu_has_one_file_for_all_its_attempts(engine: CommandEngine, tmp_path: Path) -> None:
    for attempt, status in enumerate((3, 0, 4), 1):
        job = start(engine, command=f"exit {status}", attempts=attempt)
        assert end_of(engine, job).exit_status == status
        engine.forget(job)
    assert [file.name for file in (tmp_path / "run" / "commands").iterdir()] == ["engine1.CPU1"]


def test_a_cpu_that_was_deleted_and_made_again_under_a_command_runs_another_beside_it(
    engine: CommandEngine, tmp_path: Path, eventually: Wait
) -> None:
    first = start(engine, command=f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 7")
    second = start(engine, id=2, command="exit 5")
    assert end_of(engine, second).exit_status == 5
    engine.forget(second)
    assert engine.check([first])[1] == Running()
    (tmp_path / "go").touch()
    assert end_of(engine, first).exit_status == 7
    assert [file.name for file in (tmp_path / "run" / "commands").iterdir()] == ["engine1.CPU1"]


def test_whatever_a_cpu_is_called_its_file_is_where_it_belongs(engine: CommandEngine, tmp_path: Path) -> None:
    for number, cpu in enumerate(("../../x", "", "a b/\n", "x" * 500), 1):
        job = start(engine, id=number, cpu=cpu, command="exit 6")
        assert end_of(engine, job).exit_status == 6
    assert len(list((tmp_path / "run" / "commands").iterdir())) == 4


@pytest.mark.parametrize("status", ["", "exit 0", "exit x\n", "exit\n", "exit -1\n", "exit " + "9" * 3000 + "\n"])
def test_half_an_exit_status_is_none(engine: CommandEngine, tmp_path: Path, status: str) -> None:
    job = start(engine, command="exit 3")
    end_of(engine, job)
    text = cpu_file(tmp_path).read_text()
    assert "\nexit 3\n" in text
    cpu_file(tmp_path).write_text(text.replace("exit 3\n", "") + status)
    assert end_of(engine, job).status is JobStatus.FAILED


@pytest.mark.parametrize("line", ["process 99999999999:1:x", "ran 99999999999", "process x", "exit 0 0", "\\0"])
def test_a_command_cannot_hold_the_daemon_up_with_what_it_puts_into_its_file(
    engine: CommandEngine, tmp_path: Path, line: str
) -> None:
    job = start(engine, command=f"printf '{line}\\n' >> {cpu_file(tmp_path)}; kill -9 $PPID")
    assert end_of(engine, job).status is JobStatus.FAILED


@pytest.mark.parametrize("put", ["mkfifo {}", "ln -s /dev/zero {}", "mkdir {}"])
def test_a_command_cannot_hold_the_next_one_up_with_what_it_puts_in_the_place_of_its_file(
    engine: CommandEngine, tmp_path: Path, put: str
) -> None:
    file = cpu_file(tmp_path)
    job = start(engine, command=f"rm {file}; {put.format(file)}; kill -9 $PPID")
    assert end_of(engine, job).status is JobStatus.FAILED
    engine.forget(job)
    job = start(engine, id=2, command="exit 3")
    assert end_of(engine, job).exit_status == 3
    file.rmdir() if file.is_dir() else file.unlink()


def test_the_folders_that_cannot_be_made_put_the_engine_down(tmp_path: Path) -> None:
    with pytest.raises(EngineDown, match="No such file or directory"):
        CommandEngine(engine_settings("command"), settings_in(tmp_path / "nowhere")).describe()


def test_an_unknown_key_of_its_table_is_told() -> None:
    with pytest.raises(SettingsError, match=r"engines\.engine1\.pol: unknown key \(did you mean poll\?\)"):
        CommandEngine(engine_settings("command", pol="2s"), settings_in(Path("/")))


def children_of(tmp_path: Path, count: int, eventually: Wait) -> list[int]:
    def written() -> list[str]:
        return (tmp_path / "pids").read_text().split("\n") if (tmp_path / "pids").exists() else []

    eventually(lambda: len(written()) == count + 1)
    return [int(pid) for pid in written()[:-1]]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def asked_to_end(job: Job, ending_tick: str | None = None) -> Job:
    return a_job(**vars(job) | {"ending": "CANCELLED", "ending_why": "by its caller",
                                "ending_tick": ending_tick or tick()})  # fmt: skip


def test_a_cancel_ends_a_command_and_its_children(engine: CommandEngine, tmp_path: Path, eventually: Wait) -> None:
    job = start(engine, command=f"sleep 60 & echo $! >> {tmp_path}/pids; sh -c 'echo $$ >> {tmp_path}/pids; sleep 60'")
    pids = children_of(tmp_path, 2, eventually)
    job = asked_to_end(job)
    engine.cancel(job)
    ended = end_of(engine, job)
    assert (ended.status, ended.reason) == (JobStatus.CANCELLED, "by its caller")
    eventually(lambda: not any(alive(pid) for pid in pids))


def test_a_command_that_does_not_heed_sigterm_is_killed_once_patience_is_over(
    engine: CommandEngine, tmp_path: Path, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(engine, command=f"trap '' TERM; echo $$ >> {tmp_path}/pids; while :; do sleep 0.01; done")
    pids = children_of(tmp_path, 1, eventually)
    job = asked_to_end(job)
    for _ in range(3):
        engine.cancel(job)
        time.sleep(0.01)
    assert engine.check([job])[1] == Running()
    monkeypatch.setattr(command_module, "PATIENCE", 0.0)
    engine.cancel(job)
    assert end_of(engine, job).status is JobStatus.CANCELLED
    eventually(lambda: not any(alive(pid) for pid in pids))
