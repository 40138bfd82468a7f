"""Tables, durations, devices."""

from __future__ import annotations

import json
import math

import pytest

from hybridctl.cli import render
from hybridctl.cli.commands.memory import devices_in_words, until
from hybridd.wire.types import Loaded


def test_a_table_is_aligned_by_what_a_terminal_shows() -> None:
    text = render.table(("NAME", "SIZE"), [("中文", "1 B"), ("abc", "20 B")])
    assert text.splitlines() == ["NAME  SIZE", "中文   1 B", "abc   20 B"]
    assert render.table(("A", "B"), []) == "A  B"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "never"), (math.inf, "never"), (-1, "never"), (0, "0 seconds"), (1.2, "1 second"),
        (59.4, "59 seconds"), (60, "1 minute"), (239, "4 minutes"), (3600, "1 hour"),
        (86400 * 2, "2 days"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert render.in_words(seconds) == words


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ([{"device": "cpu", "bytes": 5}], "100% CPU"),
        ([{"device": "cpu", "bytes": 48}, {"device": "cuda:0", "bytes": 52}], "48%/52% CPU/CUDA:0"),
        ([{"device": "cpu", "bytes": 0}, {"device": "cuda:0", "bytes": 9}], "100% CUDA:0"),
        ([{"device": "cpu", "bytes": 0}], "CPU"),
        ([], "-"),
    ],
)
def test_devices_in_words(devices: list[dict[str, object]], words: str) -> None:
    assert devices_in_words(devices) == words


def test_until() -> None:
    loaded = {"id": "m", "status": "loaded", "keepalive_s": 300.0}
    assert until(Loaded(**loaded, expires_in_s=240)) == "4 minutes"
    assert until(Loaded(**{**loaded, "keepalive_s": -1}, expires_in_s=None)) == "never"
    assert until(Loaded(**loaded, active_requests=1)) == "5 minutes idle"
    assert until(Loaded(**loaded, pinned=True, expires_in_s=5)) == "never"
    assert until(Loaded(id="m", status="unloading", expires_in_s=5)) == "stopping"
    assert until(Loaded(id="m", status="loading")) == "-"


def test_bars() -> None:
    assert render.bar(1, 2) == "[##########----------]"
    assert render.bar(9, 2) == "[####################]"
    assert render.bar(0, 0) == "[--------------------]"


def test_json_may_hold_file_names_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_json({"path": "a\udcff", "ä": 1})
    out = capsys.readouterr().out
    assert "\\udcff" in out
    assert json.loads(out) == {"path": "a\udcff", "ä": 1}
    render.print_json_line({"ä": 1})
    assert capsys.readouterr().out == '{"ä": 1}\n'
