"""Prompts get as much of a step as the others' patience allows, at the speed that was seen."""

from __future__ import annotations

import pytest

from hybridd.backends.huggingface.engine.forward.prefill_budget import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def seen(clock: Clock, pace: Pace, tokens: int, took_s: float) -> None:
    with pace.measured(tokens):
        clock.now += took_s


def test_before_anything_was_seen_it_is_careful() -> None:
    assert Pace().chunk == 128


@pytest.mark.parametrize(
    ("tokens", "took_s", "chunk"),
    [(512, 0.5, 256), (512, 0.05, 2560), (512, 10.0, 128), (63, 0.001, 128), (512, 0.0, 128)],
)
def test_a_quarter_of_a_second_of_what_was_seen(tokens: int, took_s: float, chunk: int) -> None:
    clock = Clock()
    pace = Pace(clock)
    seen(clock, pace, tokens, took_s)
    assert pace.chunk == chunk


def test_one_measurement_does_not_throw_it_over_and_many_do() -> None:
    clock = Clock()
    pace = Pace(clock)
    seen(clock, pace, 1000, 0.5)
    seen(clock, pace, 1000, 5.0)
    assert 300 < pace.chunk < 500
    for _ in range(20):
        seen(clock, pace, 1000, 5.0)
    assert pace.chunk == 128


def test_a_pass_that_was_ended_says_nothing_of_the_pace() -> None:
    clock = Clock()
    pace = Pace(clock)
    passed = pace.measured(1000)
    passed.__enter__()
    clock.now += 0.1
    assert not passed.__exit__(KeyError, KeyError(), None)
    assert pace.chunk == 128
