"""Parts of an answer put together are the whole, however they were cut and grouped."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_line

TEXT = some.text(max_size=4)
FRAGMENTS = some.fixed_dictionaries(
    {},
    optional={
        "index": some.integers(0, 2),
        "id": TEXT,
        "type": some.just("function"),
        "function": some.fixed_dictionaries({}, optional={"name": TEXT, "arguments": TEXT}),
    },
)
DELTAS = some.builds(
    Delta,
    text=TEXT,
    tokens=some.integers(0, 3),
    reasoning=some.none() | TEXT,
    tool_calls=some.none() | some.lists(FRAGMENTS, max_size=3),
    logprobs=some.none() | some.lists(some.fixed_dictionaries({"id": some.integers()}), max_size=2),
)


@given(some.lists(DELTAS, max_size=8), some.data())
def test_it_makes_no_difference_how_parts_are_grouped(
    parts: list[Delta], data: some.DataObject
) -> None:
    before = [part.to_wire() for part in parts]
    cuts = data.draw(some.lists(some.integers(0, len(parts)), max_size=4))
    groups = [parts[a:b] for a, b in pairwise([0, *sorted(cuts), len(parts)])]
    assert Delta.merged([Delta.merged(group) for group in groups]) == Delta.merged(parts)
    assert [part.to_wire() for part in parts] == before, "nothing changes a delta"


@given(TEXT, some.lists(some.integers(0, 30)), some.booleans())
def test_an_answer_that_was_cut_is_whole_again(text: str, cuts: list[int], reasons: bool) -> None:
    text = text * 5
    ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(ends)]
    merged = Delta.merged([Delta(reasoning=p) if reasons else Delta(p, 1) for p in parts])
    assert (merged.reasoning or "" if reasons else merged.text) == text
    assert merged.tokens == (0 if reasons else len(parts))


def test_fragments_of_calls_are_put_together_by_their_index() -> None:
    first = {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}
    merged = Delta.merged(
        [
            Delta("Let me see. ", 3, reasoning="Which?"),
            Delta(tool_calls=[first], tokens=1),
            Delta(tool_calls=[{"index": 1, "function": {"arguments": '{"x":'}}]),
            Delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f"}}]),
            Delta(tool_calls=[{"index": 1, "function": {"arguments": "1}"}}]),
        ]
    )
    assert merged.message() == {
        "role": "assistant",
        "content": "Let me see. ",
        "reasoning": "Which?",
        "tool_calls": [
            {"id": "a", "function": {"name": "f"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x":1}'}},
        ],
    }
    assert merged.tokens == 4
    assert first["function"] == {"name": "g", "arguments": ""}


@given(DELTAS)
def test_json_made_by_hand_is_what_the_encoder_would_make(delta: Delta) -> None:
    fields = {k: v for k, v in delta.to_wire().items() if k != "tokens" and v}
    assert delta.encoded() + b"\n" == encode_line(fields)
    params: dict[str, Any] = {
        "seq": 0,
        "tokens": delta.tokens,
        "delta": json.loads(delta.encoded()),
    }
    came = Delta.from_notification(params)
    assert came == delta
    assert came.raw is params


def test_what_a_daemon_of_tomorrow_sends_is_kept_aside() -> None:
    delta = Delta.from_wire({"text": None, "tokens": 2, "mood": "fine"})
    assert delta == Delta(tokens=2)
    assert delta.raw["mood"] == "fine"
    assert Delta.from_notification({"delta": 5}) == Delta()
    assert Delta().raw == {}
    assert repr(Delta("a", 1, reasoning="b")) == "Delta(text='a', tokens=1, reasoning='b')"
