"""Durations and sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.wire.units import (
    DURATION_TAKES,
    FOREVER,
    SIZE_TAKES,
    format_count,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [
        (0, 0.0),
        (90, 90.0),
        (1.5, 1.5),
        ("90", 90.0),
        ("1.5", 1.5),
        ("90s", 90.0),
        (" 5M ", 300.0),
        ("300ms", 0.3),
        ("1h30m", 5400.0),
        ("2d", 172800.0),
        ("1m30s500ms", 90.5),
        (-1, FOREVER),
        (-0.5, FOREVER),
        ("-1", FOREVER),
        ("-5m", FOREVER),
    ],
)
def test_durations(given_: Any, seconds: float) -> None:
    assert parse_duration(given_) == pytest.approx(seconds)


NO_DURATIONS = [
    None, True, False, [], {}, "", "-", "s", "5 m", "5x", "m5", "1e3", "nan", "inf", "5m!",
    float("nan"), float("inf"), -float("inf"), 10**15, 1e300, 10**5000, "9" * 20, "9" * 30 + "d",
    "1" * 65, "--1",
]  # fmt: skip


@pytest.mark.parametrize(
    "given_", NO_DURATIONS, ids=lambda v: repr(v)[:20] if v != 10**5000 else ""
)
def test_what_is_no_duration(given_: Any) -> None:
    with pytest.raises(ValueError, match="a number of seconds") as caught:
        parse_duration(given_)
    assert str(caught.value) == DURATION_TAKES


@pytest.mark.parametrize(
    ("given_", "size"),
    [
        (0, 0),
        (2**62, 2**62),
        ("1024", 1024),
        ("8GiB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        ("8G", 8 * 2**30),
        ("12GB", 12 * 10**9),
        ("1.5kB", 1500),
        ("1.5KiB", 1536),
        ("7B", 7),
        ("2T", 2 * 2**40),
        ("80%", 800),
        ("12.5 %", 125),
        ("0%", 0),
        ("100%", 1000),
    ],
)
def test_sizes(given_: Any, size: int) -> None:
    assert parse_size(given_, total=1000) == size


@pytest.mark.parametrize(
    "given_",
    [None, True, 1.5, -1, 2**63, "", "%", "x", "-1", "-5%", "101%", "nan%", "8 Gi B", "8PiB",
     "9" * 30, "9999999999TiB", [], {}],
)  # fmt: skip
def test_what_is_no_size(given_: Any) -> None:
    with pytest.raises(ValueError, match="bytes") as caught:
        parse_size(given_, total=1000)
    assert str(caught.value) == SIZE_TAKES


def test_a_share_needs_a_total() -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_size("80%")


@given(some.integers(1, 10**9))
def test_a_formatted_duration_is_one_again(seconds: int) -> None:
    again = parse_duration(format_duration(seconds))
    # Two units are shown.
    assert seconds - 3600 < again <= seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.3, "300ms"), (42, "42s"), (3599.7, "1h"), (90061, "1d1h"), (None, "for ever"),
     (FOREVER, "for ever")],
)  # fmt: skip
def test_durations_for_people(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_sizes_and_counts_for_people() -> None:
    assert [format_size(n) for n in (0, 999, 1000, 4_400_000_000, 123_456_789)] == [
        "0 B", "999 B", "1.0 kB", "4.4 GB", "123 MB",
    ]  # fmt: skip
    assert [format_count(n) for n in (12, 135e6, 7.2e9)] == ["12", "135M", "7.2B"]
