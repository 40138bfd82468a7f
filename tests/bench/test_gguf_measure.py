"""The arithmetic of the GGUF benchmark; nothing here measures time."""

from __future__ import annotations

import os

import pytest

from tests.bench.gguf_measure import (
    Prompts,
    Stream,
    first_token_s,
    generated_per_s,
    pairs,
    processor_s,
    throughput_per_s,
)

# Two streams that overlap from 2.0 to 4.0 s, each with a token every half second.
EARLY = Stream(0.0, [(1.0 + step / 2, 1) for step in range(7)])
LATE = Stream(0.5, [(2.0 + step / 2, 1) for step in range(7)])


def test_only_the_time_in_which_all_generate_counts() -> None:
    assert EARLY.last == 4.0
    assert generated_per_s([EARLY, LATE]) == pytest.approx(8 / 2.0)


def test_one_stream_counts_from_its_first_token() -> None:
    assert generated_per_s([EARLY]) == pytest.approx(2.0)


def test_streams_one_after_the_other_count_as_a_whole() -> None:
    after = Stream(0.0, [(when + 4.0, n) for when, n in EARLY.arrivals])
    assert generated_per_s([EARLY, after]) == pytest.approx(13 / 7.0)


def test_throughput_and_first_token_count_from_the_request() -> None:
    assert throughput_per_s([EARLY, LATE], 7) == pytest.approx(14 / 5.0)
    assert first_token_s([EARLY, LATE]) == pytest.approx(1.25)


def test_prompts_differ() -> None:
    prompts = Prompts()
    first, second = prompts.text(100), prompts.text(100)
    assert len(first.split()) == len(second.split()) == 100
    assert first != second


def test_ratios_are_medians_of_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = iter([10.0, 30.0, 10.0]), iter([10.0, 10.0, 20.0])
    made = pairs(
        "ours against theirs",
        {"generated": "t/s"},
        lambda: {"generated": next(ours)},
        lambda: {"generated": next(theirs)},
        3,
    )
    assert made == {"generated": 1.0}
    assert "(from 0.500 to 3.000)" in capsys.readouterr().out


def test_processor_time_grows_with_work() -> None:
    before = processor_s(os.getpid())
    while (spent := processor_s(os.getpid()) - before) < 0.01:
        pass
    assert spent >= 0.01
