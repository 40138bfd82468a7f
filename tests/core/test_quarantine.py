"""What keeps dying is left alone, longer each time."""

from __future__ import annotations

import pytest

from hybridd.core.quarantine import DEATHS, LAST_BACKOFF_S, WINDOW_S, Quarantine


def test_the_third_death_in_a_minute_begins_it() -> None:
    quarantine = Quarantine()
    for second in range(DEATHS - 1):
        quarantine.death("m", second, "crash")
        assert quarantine.check("m", second) is None
    quarantine.death("m", 10.0, "crash")
    error = quarantine.check("m", 10.5)
    assert error is not None
    assert error.kind == "quarantined"
    assert error.data["reason"] == "crash"
    assert error.data["retry_after_s"] == pytest.approx(0.5)
    assert quarantine.held(10.5) == {"m": pytest.approx(0.5)}
    assert quarantine.check("m", 11.0) is None
    assert quarantine.check("other", 10.5) is None
    assert quarantine.held(11.0) == {}


def test_deaths_that_are_long_ago_do_not_count() -> None:
    quarantine = Quarantine()
    for number in range(10):
        quarantine.death("m", number * WINDOW_S / 2, "crash")
        assert quarantine.check("m", number * WINDOW_S / 2) is None


def test_each_later_death_doubles_it_up_to_a_minute() -> None:
    quarantine, now, lengths = Quarantine(), 0.0, []
    for _ in range(DEATHS + 8):
        quarantine.death("m", now, "crash")
        left = quarantine.held(now).get("m", 0.0)
        lengths.append(left)
        now += min(left, 5.0)
    assert lengths[:6] == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0]
    assert max(lengths) == LAST_BACKOFF_S


def test_clearing_forgets_everything() -> None:
    quarantine = Quarantine()
    for _ in range(DEATHS):
        quarantine.death("m", 0.0, "crash")
    quarantine.clear("m")
    quarantine.clear("m")
    assert quarantine.check("m", 0.0) is None
    quarantine.death("m", 0.0, "crash")
    assert quarantine.check("m", 0.0) is None


def test_each_error_is_one_of_its_own() -> None:
    quarantine = Quarantine()
    for _ in range(DEATHS):
        quarantine.death("m", 0.0, "crash")
    assert quarantine.check("m", 0.0) is not quarantine.check("m", 0.0)
