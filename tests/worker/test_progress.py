"""Progress reports, thinned out."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.backends.api import LoadCancelled
from hybridd.worker.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Progress, list[tuple[str, int]], Clock]:
    sent: list[tuple[str, int]] = []

    def send(frame: dict[str, Any]) -> None:
        assert frame["op"] == "progress"
        sent.append((frame["stage"], frame["done"]))

    clock = Clock()
    return Progress(send, lambda: False, clock), sent, clock


def test_at_most_twenty_a_second_but_always_the_last() -> None:
    report, sent, clock = make()
    for done in range(1001):
        report("weights", done, 1000)
        clock.now += 0.001
    assert sent[0] == ("weights", 0)
    assert sent[-1] == ("weights", 1000)
    assert 19 <= len(sent) <= 23


def test_a_stage_that_never_ended_says_how_far_it_came() -> None:
    report, sent, _clock = make()
    report("weights", 0, 10)
    report("weights", 7, 10)
    report("context", 0, 1)
    assert sent == [("weights", 0), ("weights", 7), ("context", 0)]


def test_flush() -> None:
    report, sent, _clock = make()
    report("weights", 0, 10)
    report("weights", 3, 10)
    report.flush()
    report.flush()
    assert sent == [("weights", 0), ("weights", 3)]


def test_a_cancelled_load_hears_of_it() -> None:
    with pytest.raises(LoadCancelled):
        Progress(lambda _frame: None, lambda: True)("weights", 0, 1)
