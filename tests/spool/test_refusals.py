"""A job file that breaks the protocol: REJECTED in its light, whole in rejected/, with the line and the reason."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from orchestrator.job import JobRequest, parse_job_file
from orchestrator.spool import intake
from orchestrator.spool.claim import Claim, claim
from orchestrator.spool.directory import SpoolDirectory
from tests.spool.place import Place, bash, output_of, until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

BAD_FILES: dict[str, tuple[bytes, str]] = {
    "an unknown key": (b"job=A\n\n# x\ncolour=red\n", "line 4: unknown key 'colour'"),
    "no equals sign": (b"just words\n", "line 1: not key=value: 'just words'"),
    "a key given twice": (b"job=A\njob=A\n", "line 2: job is given twice"),
    "a parameter given twice": (b"param.a=1\nparam.a=2\n", "line 2: param.a is given twice"),
    "a NUL byte": (b"job=A\nenvironment=\x00\n", "line 2: a NUL byte"),
    "bytes that are not UTF-8": (b"# gr\xc3\xbc\xc3\x9fe\njob=\xff\n", "line 2: bytes that are not UTF-8"),
    "over 64 KiB": (b"#" * (64 * 1024) + b"\n", "the file is over 64 KiB"),
    "a priority out of range": (b"priority=101\n", "line 1: priority: not a whole number from 0 to 100: '101'"),
    "a pid that is none": (b"pid=$$\n", "line 1: pid: not a whole number"),
    "an empty value": (b"job=\n", "line 1: job: empty"),
    "a control character": (b"job=\x1b[31m\n", "line 1: 'job': a control character in the value"),
    "an unknown engine": (b"engine=engine9\n", "engine: there is no engine 'engine9'"),
    "an unknown command": (b"command=nope\n", "command: 'nope' is not configured; there are: greet"),
    "on_caller_exit without pid": (b"on_caller_exit=cancel\n", "on_caller_exit=cancel needs pid="),
}


def assert_refused(place: Place, name: str, why: str) -> None:
    """The row, the file with its reason, and after the release the light."""
    job = place.row(name)
    assert job.status == "REJECTED"
    assert why in (job.reason or "")
    assert place.why_rejected(name) == f"{job.reason}\n"
    place.release.release_all()
    first, *rest = place.light(name).read_text().splitlines()
    assert re.fullmatch(r'REJECTED id=\d+( job=\S+)? reason="[ -~]*"', first)
    assert why.replace('"', "'")[:80] in first
    assert rest == []
    assert place.listing() == [f"{name}.trafficlight"]
    assert place.private() == []


@pytest.mark.parametrize("light", [True, False], ids=["with a light", "touch only"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_job_file_is_refused_and_kept_whole(place: Place, case: str, light: bool) -> None:
    content, why = BAD_FILES[case]
    place.drop("CRM", content, light=light)

    assert place.take() == 1
    assert place.light("CRM").read_text() == ""  # never gone, not for a moment: the release rewrites it
    assert place.rejected("CRM").read_bytes() == content
    assert_refused(place, "CRM", why)


def test_a_file_of_64_kib_is_not_too_long(place: Place) -> None:
    place.drop("CRM", b"#" * (64 * 1024))
    place.take()

    assert place.row("CRM").status == "QUEUED"


def test_a_fifo_is_refused_and_does_not_block(place: Place) -> None:
    os.mkfifo(place.path / "CRM.job")
    place.take()

    assert_refused(place, "CRM", "not a regular file")
    assert place.rejected("CRM").is_fifo()


def test_a_fifo_with_a_writer_is_refused_too(place: Place) -> None:
    writer = bash("mkfifo CRM.job; exec 3<>CRM.job; echo job=A >&3; echo ready; sleep 30", place.path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    place.take()
    writer.kill()
    writer.communicate()

    assert_refused(place, "CRM", "not a regular file")


def test_a_directory_is_refused_with_what_is_in_it(place: Place) -> None:
    (place.path / "CRM.job").mkdir()
    (place.path / "CRM.job" / "inside").write_text("x")
    place.take()

    assert_refused(place, "CRM", "not a regular file")
    assert (place.rejected("CRM") / "inside").read_text() == "x"


def test_a_symbolic_link_is_refused_and_not_followed(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("command=secret\n")
    (place.path / "CRM.job").symlink_to(secret)
    place.take()

    assert_refused(place, "CRM", "a symbolic link")
    assert place.rejected("CRM").is_symlink()
    assert "secret" not in place.light("CRM").read_text()
    assert secret.read_text() == "command=secret\n"


def test_a_dangling_link_is_refused(place: Place) -> None:
    (place.path / "CRM.job").symlink_to("/nowhere/at/all")
    place.take()

    assert_refused(place, "CRM", "a symbolic link")


def test_a_socket_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("CRM.job")
    place.take()

    assert_refused(place, "CRM", "a socket or device")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_refused(place: Place) -> None:
    try:
        os.mknod(place.path / "CRM.job", 0o020666, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("not even root may make a device here")
    place.take()

    assert_refused(place, "CRM", "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_that_we_may_not_read_is_refused(place: Place) -> None:
    place.drop("CRM").chmod(0)
    place.take()

    assert_refused(place, "CRM", "cannot be read by uid")


def test_a_file_that_cannot_be_read_is_refused_with_the_uid_that_tried(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str, *rest: int, **options: int) -> int:
        if str(path).startswith("CRM.") and "trafficlight" not in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **options)

    place.drop("CRM", "job=A\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        place.take()

    assert place.rejected("CRM").read_text() == "job=A\n"
    assert_refused(place, "CRM", f"cannot be read by uid {os.geteuid()}")


def test_refused_files_of_one_name_are_all_kept(place: Place) -> None:
    for number in range(4):
        file = place.drop("CRM", f"bad {number}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))  # as `cp -p` of one template does
        place.take()

    kept = sorted(file.read_text() for file in (place.path / "rejected").glob("CRM*.job"))
    assert kept == [f"bad {number}\n" for number in range(4)]
    assert len(list((place.path / "rejected").glob("CRM*.reason"))) == 4
    assert place.rejected("CRM").read_text() == "bad 3\n"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_rejected_folder_that_is_none_keeps_no_other_job_waiting(place: Place, tmp_path: Path, kind: str) -> None:
    folder = place.path / "rejected"
    (tmp_path / "elsewhere").mkdir()
    folder.write_text("") if kind == "file" else folder.symlink_to(tmp_path / "elsewhere")
    place.drop("BAD", "bad\n")
    place.drop("GOOD1")
    place.take()
    place.drop("GOOD2")
    place.take()

    assert place.statuses() == {"BAD": "REJECTED", "GOOD1": "QUEUED", "GOOD2": "QUEUED"}
    assert list((tmp_path / "elsewhere").iterdir()) == []
    place.release.release_all()
    assert place.light("BAD").read_text().startswith("REJECTED ")

    folder.unlink()
    place.take()
    assert place.rejected("BAD").read_text() == "bad\n"
    assert len(place.rows("BAD")) == 1
    assert place.private() == []


def test_a_reason_cannot_forge_a_light_or_a_terminal(place: Place) -> None:
    place.drop("CRM", 'x" reason="fine\x07=1\ncolour\u202e=\n'.encode())
    place.take()
    place.release.release_all()

    line = output_of(bash("IFS= read -r line < CRM.trafficlight; printf '%s' \"$line\"", place.path))
    assert line.count('"') == 2
    assert line.isascii()
    assert line.isprintable()
    assert line.endswith('"')
    assert place.why_rejected("CRM").isascii()


def test_a_real_bash_caller_gets_its_reason(place: Place) -> None:
    caller = bash(
        ": > N.trafficlight; echo colour=red > .N.tmp; mv .N.tmp N.job; "
        "while [ -e N.trafficlight ] && [ ! -s N.trafficlight ]; do sleep 0.01; done; cat N.trafficlight",
        place.path,
    )
    until(lambda: place.take(), "the job file")
    place.release.release_all()

    assert output_of(caller) == "REJECTED id=1 reason=\"line 1: unknown key 'colour'\"\n"


def test_a_fault_of_ours_with_one_job_file_refuses_that_one_and_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def parse(content: bytes, name: str) -> JobRequest:
        if name == "BAD":
            raise StopIteration
        return parse_job_file(content, name)

    monkeypatch.setattr(intake, "parse_job_file", parse)
    for name in ("A", "BAD", "C"):
        place.drop(name)

    assert place.take() == 3
    assert place.statuses() == {"A": "QUEUED", "BAD": "REJECTED", "C": "QUEUED"}
    assert len([line for line in caplog.messages if "StopIteration()" in line and "a fault" in line]) == 1
    assert place.why_rejected("BAD") == "a fault of the orchestrator, not of the job file: StopIteration()\n"
    place.release.release_all()
    assert place.light("BAD").read_text().startswith("REJECTED ")
    assert place.private() == []


def test_a_file_that_cannot_even_be_looked_at_keeps_no_other_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(spool: SpoolDirectory, name: str, **options: bool) -> Claim | None:
        if name == "BAD":
            raise StopIteration
        return claim(spool, name, **options)

    for name in ("A", "BAD", "C"):
        place.drop(name)
    with monkeypatch.context() as patch:
        patch.setattr(intake, "claim", fault)
        assert place.take() == 2
    assert "StopIteration()" in caplog.text
    assert place.take() == 1


def test_a_left_over_claim_that_cannot_be_read_keeps_no_other_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.open

    def fault(path: str, *rest: int, **options: int) -> int:
        if str(path).startswith("BAD.0"):
            raise OSError(5, "Input/output error", path)
        return real(path, *rest, **options)

    private = place.path / ".orchestrator"
    private.mkdir(mode=0o700)
    for name in ("A", "BAD", "C"):
        (private / f"{name}.{'0' * 16}").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fault)
        assert place.take() == 2
    assert caplog.text.count("Input/output error") == 1
    assert place.private() == [f"BAD.{'0' * 16}"]
    assert place.take() == 1


def test_a_claim_that_cannot_be_removed_keeps_no_other_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.unlink

    def fault(path: str, **options: int) -> None:
        if str(path).startswith("BAD."):
            raise OSError(5, "Input/output error", path)
        real(path, **options)

    for name in ("A", "BAD", "C"):
        place.drop(name)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fault)
        assert place.take() == 3
        place.drop("D")
        place.take()
    assert "Input/output error" in caplog.text
    assert place.statuses() == dict.fromkeys(("A", "BAD", "C", "D"), "QUEUED")
    place.take()
    assert place.private() == []
    assert len(place.rows("BAD")) == 1


def test_a_reason_is_not_written_through_a_link_that_a_caller_laid(place: Place, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    folder = place.path / "rejected"
    folder.mkdir()
    for name in (".reason", "CRM.reason", "reason"):
        (folder / name).symlink_to(victim)
    place.drop("CRM", "colour=red\n")
    place.take()

    assert victim.read_text() == "precious\n"
    assert not (folder / "CRM.reason").is_symlink()
    assert_refused(place, "CRM", "unknown key 'colour'")


def test_a_directory_in_the_reasons_place_is_moved_aside(place: Place) -> None:
    (place.path / "rejected" / "CRM.reason").mkdir(parents=True)
    place.drop("CRM", "colour=red\n")
    place.take()

    assert_refused(place, "CRM", "unknown key 'colour'")
    assert len(list((place.path / "rejected").glob("CRM~*.reason"))) == 1


@pytest.mark.parametrize("file", ["CRM.job", "bad name.job"])
def test_a_rejected_that_is_a_link_is_not_followed_and_keeps_nobody_waiting(
    place: Place, tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (place.path / "rejected").symlink_to(tmp_path / "elsewhere")
    (place.path / file).write_text("colour=red\n")
    place.drop("GOOD")
    place.take()
    place.release.release_all()

    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert place.light(file.removesuffix(".job")).read_text().startswith("REJECTED ")
    assert place.statuses()["GOOD"] == "QUEUED"
    assert "rejected: is no directory of its own: remove it" in caplog.text
    (place.path / "rejected").unlink()
    place.take()
    assert place.private() == []
    assert place.listing() == sorted([file.replace(".job", ".trafficlight"), "GOOD.trafficlight"])
    assert len(list((place.path / "rejected").iterdir())) == 2


@as_root
def test_a_rejected_of_somebody_else_is_put_up_with(place: Place) -> None:
    (place.path / "rejected").mkdir()
    os.chown(place.path / "rejected", 12345, 12345)
    place.drop("CRM", "colour=red\n")
    place.take()

    assert_refused(place, "CRM", "unknown key 'colour'")
