"""What `doctor` finds of engines: simulated ones, asked side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from orchestrator.engines.delphix.client import DelphixClient
from orchestrator.simulator import Simulator
from tests.doctor.patient import LONG_AGO, Patient
from tests.house import House

Make = Callable[..., Patient]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """Give a simulated engine."""
    with Simulator(seconds=60) as engine:
        yield engine


@pytest.fixture
def patient_of(masking_house: House, capsys: pytest.CaptureFixture[str]) -> Make:
    """Make an installation whose engine1 has this url."""

    def make(url: str, more: str = "", **changes: str) -> Patient:
        masking_house.add_engine("engine1", url, more=more)
        text = masking_house.settings.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        masking_house.settings.write_text(text)
        return Patient(masking_house, capsys)

    return make


def test_an_engine_that_is_well_is_one_line(patient_of: Make, simulator: Simulator) -> None:
    patient = patient_of(simulator.url)
    patient.is_well()

    told = patient.found("OK", "engine engine1", "masking engine")["found"]
    assert told.endswith(", login of admin, 7 jobs, 2 of 2 CPUs FREE, clocks agree")
    assert simulator.executions() == []


def test_a_login_that_is_refused_fails(patient_of: Make, simulator: Simulator) -> None:
    simulator.fault(refuse_login=1)

    found = patient_of(simulator.url).found("FAIL", "engine engine1", "the login of admin was refused")
    assert "the username and the password" in found["advice"]


def test_an_engine_that_does_not_answer_fails(patient_of: Make) -> None:
    patient_of("http://127.0.0.1:9/masking/api").found("FAIL", "engine engine1", "Connection refused")


def test_an_engine_that_hangs_holds_up_no_other(patient_of: Make, simulator: Simulator) -> None:
    patient = patient_of(simulator.url)
    with Simulator() as hanging:
        hanging.fault(hang=5)
        patient.house.add_engine("engine2", hanging.url)
        began = time.monotonic()
        findings = patient.doctor("--timeout", "0.5")
        took = time.monotonic() - began

    told = {each["subject"]: each for each in findings if each["subject"].startswith("engine ")}
    assert (told["engine engine1"]["level"], told["engine engine2"]["level"]) == ("OK", "FAIL")
    assert told["engine engine2"]["found"] == "no answer within 0.5 s"
    assert took < 1.5


@pytest.mark.parametrize(("clock", "told"), [(90, "ahead of ours"), (-90, "behind ours")])
def test_a_clock_that_is_wrong_is_a_warning(patient_of: Make, simulator: Simulator, clock: int, told: str) -> None:
    simulator.fault(clock=clock)
    patient = patient_of(simulator.url)

    found = patient.found("WARN", "engine engine1", "its clock is ", told)
    assert "nothing depends on it but the times in records" in found["advice"]
    simulator.fault(clock=50 if clock > 0 else -50)
    patient.is_well()


def test_an_engine_that_does_not_tell_its_time_is_not_compared(
    patient_of: Make, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DelphixClient, "clock_skew", lambda _: None)

    assert "clock" not in patient_of(simulator.url).found("OK", "engine engine1")["found"]


def test_a_password_that_is_set_for_the_programs_only_is_a_warning(
    patient_of: Make, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = patient_of(simulator.url)
    monkeypatch.delenv("ENGINE_PASSWORD")

    patient.found("WARN", "engine engine1", "ENGINE_PASSWORD", "is not set here", "the programs found it UP")
    patient.change("HEALTH", "state = 'DOWN'")
    patient.found("FAIL", "engine engine1", "ENGINE_PASSWORD")


def test_an_engine_that_lists_some_of_its_jobs_only_is_a_warning(patient_of: Make, simulator: Simulator) -> None:
    patient = patient_of(simulator.url)
    describe = "orchestrator.engines.delphix.engine.DelphixEngine.describe"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(describe, lambda _: "masking engine")
        simulator.fault(status_500=1)
        patient.found("WARN", "engine engine1", "not all of its jobs can be listed", "status 500")


def test_a_certificate_that_is_not_checked_is_a_warning(patient_of: Make, simulator: Simulator) -> None:
    patient_of(simulator.url, more="verify = false").found("WARN", "engine engine1", "anybody on the way")


def test_a_password_that_goes_over_the_network_as_it_is_is_a_warning(patient_of: Make) -> None:
    patient_of("http://engine.invalid/masking/api").found("WARN", "engine engine1", "over the network as it is")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("draining = 1", "is DRAINING"),
        ("state = 'DOWN', reason = 'it is off'", "the programs find it DOWN since"),
        ("reason = 'job 7: odd'", "the programs say: job 7: odd"),
    ],
)
def test_what_the_programs_know_of_an_engine_is_a_warning(
    patient_of: Make, simulator: Simulator, values: str, words: str
) -> None:
    patient = patient_of(simulator.url)
    patient.change("HEALTH", values)

    patient.found("WARN", "engine engine1", words)
    patient.found("OK", "engine engine1", "masking engine")


def test_an_engine_without_cpus_is_a_warning(patient_of: Make, simulator: Simulator) -> None:
    patient = patient_of(simulator.url)
    patient.house.query("DELETE FROM ENGINES")
    assert "the next start" in patient.found("WARN", "engine engine1", "no CPU of it")["advice"]

    settings = patient.house.settings
    settings.write_text(settings.read_text().replace("cpus = 2", ""))
    assert "engine add engine1" in patient.found("WARN", "engine engine1", "it gets no jobs")["advice"]


def test_rows_of_engines_that_do_not_serve_are_warnings(patient: Patient) -> None:
    patient.house.query("INSERT INTO ENGINES(engine, cpu, status) VALUES('local', 'CPU8', 'BUSY')")
    patient.house.query("INSERT INTO ENGINES(engine, cpu, status, job_id) VALUES('local', 'CPU9', 'RUNNING', 77)")
    patient.house.query("INSERT INTO ENGINES(engine, cpu) VALUES('other', 'CPU1')")

    patient.found("WARN", "engine local", "CPU8 has status 'BUSY'")
    patient.found("WARN", "engine local", "CPU9 is held by job 77")
    patient.found("WARN", "engines", "ENGINES has other")


def test_a_state_that_was_written_by_hand_breaks_nothing(patient: Patient) -> None:
    patient.change("HEALTH", f"state = 'FINE', since = '{LONG_AGO}'")

    patient.is_well()


def test_a_command_engine_is_not_asked_since_that_would_make_its_folders(patient: Patient) -> None:
    patient.found("OK", "engine local", "commands on this host, 2 of 2 CPUs FREE")

    assert not (patient.run_dir / "commands").exists()
