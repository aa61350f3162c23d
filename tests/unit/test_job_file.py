"""What a job file may say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import JobRefused
from orchestrator.job import MAX_FILE_BYTES, JobRequest, ascii_line, is_engine_name, is_name, parse_job_file

GOOD: list[tuple[str, str, Any]] = [
    ("job=MASK_HR", "job", "MASK_HR"),
    ("job=167", "job", "167"),
    ("job=Kunden maskieren (März)", "job", "Kunden maskieren (März)"),
    ("job=a=b", "job", "a=b"),
    ("environment=PROD", "environment", "PROD"),
    ("engine=engine1", "engine", ("engine1",)),
    ("engine=engine1, engine2,engine1", "engine", ("engine1", "engine2")),
    ("source_connector=1", "source_connector", 1),
    ("target_connector=2147483647", "target_connector", 2147483647),
    ("command=greet", "command", "greet"),
    ("command=echo a=b # c", "command", "echo a=b # c"),
    ("priority=0", "priority", 0),
    ("priority=100", "priority", 100),
    ("pid=2", "pid", 2),
    ("pid=4194304", "pid", 4194304),
    ("timeout=90", "timeout", 90.0),
    ("timeout=2h", "timeout", 7200.0),
    ("retries=0", "retries", 0),
    ("retries=100", "retries", 100),
    ("on_caller_exit=keep", "on_caller_exit", "keep"),
    ("pid=7\non_caller_exit=cancel", "on_caller_exit", "cancel"),
    ("on_unknown=retry", "on_unknown", "retry"),
    ("on_warning=finish", "on_warning", "finish"),
    ("param.who=the 'world'", "params", {"who": "the 'world'"}),
    ("param.who=\nparam.A-b_9=x", "params", {"who": "", "A-b_9": "x"}),
    ("param.tab=a\tb", "params", {"tab": "a\tb"}),
]

BAD = [
    "job=", "job=" + "x" * 4097, "environment=", "command=", "engine=", "engine=a,,b", "engine=../x", "engine=a b",
    "engine=" + "e" * 65, "source_connector=0", "source_connector=x", "target_connector=2147483648",
    "target_connector=-1", "priority=101", "priority=-1", "priority=5.0", "priority=٣", "priority=", "pid=0", "pid=1",
    "pid=4194305", "pid=0x10", "timeout=0", "timeout=soon", "timeout=-5", "timeout=1d", "timeout=", "retries=101",
    "retries=1e2", "on_caller_exit=kill", "on_caller_exit=", "on_unknown=FAIL", "on_warning=ignore",
    "param.a b=x", "param.=x", "param." + "k" * 65 + "=x", "param=x", "colour=red", "Job=x", "=x", "just words",
    "job=a\x1bb", "param.x=a\x00b", "param.x=a\x7fb", "param.x=a\x85b", "param.x=a\u2028b", "param.x=a\rb",
]  # fmt: skip


def refusal(content: bytes, name: str = "MASK_CRM") -> JobRefused:
    with pytest.raises(JobRefused) as refused:
        parse_job_file(content, name)
    return refused.value


@pytest.mark.parametrize(("text", "key", "value"), GOOD)
def test_a_good_value_is_read(text: str, key: str, value: Any) -> None:
    assert getattr(parse_job_file(text.encode(), "MASK_CRM"), key) == value


@pytest.mark.parametrize("text", BAD)
def test_a_bad_line_is_refused_with_its_number(text: str) -> None:
    assert refusal(f"# a comment\n\n{text}\n".encode()).line == 3


def test_an_empty_file_asks_for_the_job_that_its_name_says() -> None:
    assert parse_job_file(b"", "MASK_CRM") == JobRequest(job="MASK_CRM")


def test_what_is_left_out_has_the_defaults_of_the_protocol() -> None:
    request = parse_job_file(b"\n", "MASK_CRM")
    assert (request.priority, request.timeout, request.retries, request.pid) == (None, None, 0, None)
    assert (request.on_caller_exit, request.on_unknown, request.on_warning) == ("keep", "fail", "fail")
    assert (request.engine, request.environment, request.command, request.params) == ((), None, None, {})
    assert (request.source_connector, request.target_connector) == (None, None)


@pytest.mark.parametrize(("name", "job"), [("MASK_CRM@17", "MASK_CRM"), ("M@a@b", "M"), ("M", "M"), ("M@", "M")])
def test_without_a_job_key_the_job_is_the_name_up_to_its_first_at(name: str, job: str) -> None:
    assert parse_job_file(b"priority=1", name).job == job


def test_a_job_key_wins_over_the_name() -> None:
    assert parse_job_file(b"job=MASK_HR", "MASK_CRM@1").job == "MASK_HR"


def test_comments_blank_lines_and_blanks_around_words_say_nothing() -> None:
    content = b"  # job=A\n\n   \n  job =  MASK_HR  \n#x\n\tpriority\t=\t7\n"
    request = parse_job_file(content, "X")
    assert (request.job, request.priority) == ("MASK_HR", 7)


def test_a_file_from_windows_is_read_as_any_other() -> None:
    request = parse_job_file(b"job=MASK_HR\r\n\r\n# x\r\npriority=7\r\n", "X")
    assert (request.job, request.priority) == ("MASK_HR", 7)


def test_the_last_line_needs_no_newline() -> None:
    assert parse_job_file(b"job=A\npriority=7", "X").priority == 7


@pytest.mark.parametrize("twice", ["job=A\njob=A", "priority=1\npriority=1", "param.x=1\nparam.x=2"])
def test_a_key_given_twice_is_refused_at_the_second(twice: str) -> None:
    refused = refusal(twice.encode())
    assert (refused.line, "twice" in refused.reason) == (2, True)


def test_an_unknown_key_is_named() -> None:
    assert str(refusal(b"job=A\nprioritty=3")) == "line 2: unknown key 'prioritty'"


def test_64_kib_are_read_and_one_byte_more_is_refused() -> None:
    content = b"#" * MAX_FILE_BYTES
    assert parse_job_file(content, "A").job == "A"
    refused = refusal(content + b"#")
    assert (refused.line, refused.reason) == (0, "the file is over 64 KiB")


@pytest.mark.parametrize("content", [b"\xff", b"a\x80", b"\xed\xa0\x80", b"\xc0\xaf", "job=é".encode("latin-1")])
def test_bytes_that_are_not_utf_8_are_refused(content: bytes) -> None:
    refused = refusal(b"job=A\n#" + content)
    assert (refused.line, refused.reason) == (2, "bytes that are not UTF-8")


def test_a_nul_byte_is_refused_even_in_a_comment() -> None:
    refused = refusal(b"job=A\n\n# \x00")
    assert (refused.line, refused.reason) == (3, "a NUL byte")


def test_cancelling_with_the_caller_needs_a_caller() -> None:
    assert "pid=" in refusal(b"on_caller_exit=cancel").reason


@pytest.mark.parametrize("key", ["job", "environment", "engine", "priority", "timeout", "pid", "on_unknown", "nothing"])
def test_the_reason_is_short_however_long_the_value_is(key: str) -> None:
    assert len(str(refusal(f"{key}={'?' * 60_000}".encode()))) < 250


@pytest.mark.parametrize("name", ["A", "_x", "9", "MASK_CRM@17", "a.b-c+d@e", "x" * 200, "A..", "a.job"])
def test_a_name_of_the_protocol_is_allowed(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", ".a", "-a", "+a", "@a", "a b", "a/b", "a\n", "\na", "é", "x" * 201, "a\x00", "٣"])
def test_any_other_name_is_not(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("name", ["", "a,b", "a b", "a@b", "a+b", "-a", "a\n", "x" * 65, "é"])
def test_an_engines_name_fits_into_a_list_and_a_light(name: str) -> None:
    assert not is_engine_name(name)
    assert is_engine_name("engine-1.example")


LINE = st.tuples(
    st.sampled_from(["job", "engine", "priority", "pid", "timeout", "on_unknown", "param.x", "param.y", "x"]),
    st.sampled_from(["=", " = ", ""]),
    st.text(max_size=12),
)


@given(st.binary(max_size=200) | st.lists(LINE.map("".join), max_size=5).map(lambda lines: "\n".join(lines).encode()))
def test_any_bytes_give_a_request_or_a_refusal(content: bytes) -> None:
    try:
        request = parse_job_file(content, "NAME@1")
    except JobRefused as refused:
        assert ascii_line(refused).isprintable()
        assert 0 <= refused.line <= content.count(b"\n") + 1
    else:
        assert request.job
        assert "\n" not in "".join([request.job, *request.params, *request.params.values()])


@given(st.text(st.characters(exclude_categories=())))
def test_an_ascii_line_is_one_line_of_printable_ascii_for_any_text(text: str) -> None:
    line = ascii_line(text)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) >= len(text)


def test_an_ascii_line_shows_what_it_escapes() -> None:
    assert ascii_line("rot\x1b[31m é \n€") == r"rot\x1b[31m \xe9 \n\u20ac"
    assert ascii_line(["x", 1]) == "['x', 1]"
