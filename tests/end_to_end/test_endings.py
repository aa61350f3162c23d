"""Cancel, timeout, and callers that are signalled, gone, or refused."""

from __future__ import annotations

import signal
import subprocess

import pytest

from orchestrator.simulator import Simulator
from tests.house import House, wait_for


def test_a_cancel_file_cancels_a_running_job_on_the_engine_and_tells_the_caller(masking_house: House) -> None:
    with Simulator(seconds=60) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        masking_house.drop("LONG", "job=MASK_CRM")
        masking_house.wait_for_status("LONG", "RUNNING")
        (masking_house.spool / "LONG.cancel").touch()

        assert (masking_house.verdict("LONG") or "").startswith("CANCELLED id=1 job=MASK_CRM engine=engine1 cpu=CPU1")
        assert [each["status"] for each in engine.executions()] == ["CANCELLED"]
        assert not (masking_house.spool / "LONG.cancel").exists()


def test_a_cancel_file_takes_a_waiting_job_out_of_the_queue(house: House) -> None:
    house.start()
    house.query("DELETE FROM ENGINES")
    house.drop("WAITS", "command=true")
    house.wait_for_status("WAITS", "QUEUED")
    (house.spool / "WAITS.cancel").touch()

    assert (house.verdict("WAITS") or "").startswith("CANCELLED ")


def test_the_command_line_cancels_a_running_command_and_all_its_children(house: House) -> None:
    house.start()
    house.drop("LONG", "command=sh", "param.line=sleep 61 & sleep 61; wait")
    house.wait_for_status("LONG", "RUNNING")
    wait_for(lambda: _count("sleep 61") >= 1)
    house.run("cancel", "LONG")

    assert (house.verdict("LONG") or "").startswith("CANCELLED ")
    wait_for(lambda: _count("sleep 61") == 0)
    house.run("cancel", "LONG", status=1)


def _count(command: str) -> int:
    return int(subprocess.run(["pgrep", "-cfx", command], capture_output=True, check=False, text=True).stdout)


def test_a_job_that_runs_too_long_is_cancelled_on_the_engine_and_its_caller_gets_124(masking_house: House) -> None:
    with Simulator(seconds=60) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        caller = masking_house.call("-t", "500ms", "MASK_CRM")

        assert caller.wait(20) == 124
        assert [each["status"] for each in engine.executions()] == ["CANCELLED"]


def test_the_timeout_of_the_spool_holds_where_a_job_file_gives_none(house: House) -> None:
    house.settings.write_text(house.settings.read_text().replace('path = "spool"', 'path = "spool"\ntimeout = "500ms"'))
    house.start()
    house.drop("LONG", "command=sh", "param.line=sleep 60")

    assert (house.verdict("LONG") or "").startswith("TIMEOUT ")


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_caller_that_is_interrupted_cancels_its_job(masking_house: House, how: str) -> None:
    with Simulator(seconds=60) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        caller = masking_house.call("MASK_CRM")
        wait_for(lambda: [each["status"] for each in engine.executions()] == ["RUNNING"])
        caller.send_signal(signal.Signals[how])

        assert caller.wait(20) == 128 + signal.Signals[how]
        wait_for(lambda: [each["status"] for each in engine.executions()] == ["CANCELLED"])
        wait_for(lambda: not list(masking_house.spool.glob("MASK*")))


def test_a_caller_that_is_killed_takes_its_job_along_where_it_said_so(masking_house: House) -> None:
    with Simulator(seconds=60) as engine:
        masking_house.add_engine("engine1", engine.url)
        masking_house.start()
        caller = masking_house.call("MASK_CRM", "on_caller_exit=cancel")
        keeper = masking_house.call("MASK_HR")
        wait_for(lambda: [each["status"] for each in engine.executions()] == ["RUNNING", "RUNNING"])
        caller.kill()
        caller.wait()
        keeper.kill()
        keeper.wait()

        wait_for(lambda: "CANCELLED" in [each["status"] for each in engine.executions()])
        ended = {each["jobName"]: each["status"] for each in engine.executions()}
        assert ended == {"MASK_CRM": "CANCELLED", "MASK_HR": "RUNNING"}


def test_a_caller_gets_sigquit_when_its_job_does_not_finish_and_none_when_it_does(house: House) -> None:
    house.start()
    waits = """
        trap 'echo quit; exit 3' QUIT
        : > "$ORCHESTRATOR_SPOOL/{0}.trafficlight"
        printf 'command=sh\\nparam.line={1}\\npid=%s\\n' $$ > "$ORCHESTRATOR_SPOOL/{0}.job"
        for i in $(seq 200); do [ -e "$ORCHESTRATOR_SPOOL/{0}.trafficlight" ] || exit 0; sleep 0.05; done
    """
    red = house.script(waits.format("RED", "exit 9"))
    green = house.script(waits.format("GREEN", "exit 0"))

    assert red.communicate(timeout=20)[0] == "quit\n"
    assert red.returncode == 3
    assert green.wait(20) == 0
    assert (house.light("RED") or "").startswith("FAILED id=")


def test_a_touch_only_caller_waits_without_a_gap(house: House) -> None:
    house.add_settings('[commands.TOUCHED]\nrun = ["/bin/true"]')
    with Simulator(seconds=0.3) as engine:
        engine.put_job(name="TOUCHED", environment="DEMO", seconds=0.3, outcome="succeed")
        house.add_engine("engine1", engine.url)
        house.start()
        caller = house.script(
            """
            cd "$ORCHESTRATOR_SPOOL" && touch TOUCHED.job
            while [ -e TOUCHED.job ] || { [ -e TOUCHED.trafficlight ] && [ ! -s TOUCHED.trafficlight ]; }
            do :; done
            [ ! -e TOUCHED.trafficlight ]
            """
        )

        assert caller.wait(20) == 0
        assert [each["status"] for each in engine.executions()] == ["SUCCEEDED"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"job=X\nfoo=bar\n", "line 2: unknown key 'foo'"),
        (b"job=X\npriority=101\n", "line 2: priority: "),
        (b"job=X\njob=Y\n", "line 2: job is given twice"),
        (b"job=" + b"X" * 70_000, "over 64 KiB"),
        (b"job=\xff\n", "line 1: bytes that are not UTF-8"),
        (b"# fine\njob=a\x00b\n", "line 2: a NUL byte"),
        (b"job=X\nengine=nowhere\n", "no engine 'nowhere'"),
        (b"command=rm -rf /\n", "command: "),
    ],
)
def test_a_bad_job_file_is_rejected_whole_with_the_line_and_the_reason(house: House, content: bytes, why: str) -> None:
    house.start()
    (house.spool / "BAD.trafficlight").touch()
    (house.spool / "BAD.job").write_bytes(content)
    told = house.verdict("BAD") or ""

    assert told.startswith("REJECTED id=1 ")
    assert why.replace('"', "'") in told
    wait_for(lambda: (house.spool / "rejected" / "BAD.reason").exists())
    assert why in (house.spool / "rejected" / "BAD.reason").read_text()
    assert (house.spool / "rejected" / "BAD.job").read_bytes() == content
    house.drop("GOOD", "command=true")
    assert house.verdict("GOOD") is None
