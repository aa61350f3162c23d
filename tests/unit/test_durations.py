"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("1.5", 1.5), ("500ms", 0.5), ("30s", 30), ("15m", 900), ("2h", 7200), ("0.25h", 900),
        ("1ms", 0.001), ("007", 7), ("999999999h", 3599999996400),
    ],
)  # fmt: skip
def test_a_duration_is_a_number_and_perhaps_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "0", "0s", "0.0h", "-1", "+1", "1d", "1 s", " 1", "1\n", "s", ".5", "1.", "1e3", "inf", "nan", "1H", "٣",
     "1,5", "1m30s", "1234567890"],
)  # fmt: skip
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_above_0_or_a_value_error(text: str) -> None:
    try:
        assert parse_duration(text) > 0
    except ValueError as error:
        assert repr(text) in str(error)
