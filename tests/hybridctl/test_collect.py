"""Deltas put together are what the unstreamed call would have said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hybridctl.sdk.collect import Collector
from hybridd.wire.types import Delta


@given(st.lists(st.text()))
def test_the_text_is_the_deltas_joined(parts: list[str]) -> None:
    collected = Collector()
    for part in parts:
        collected.add(Delta(text=part, tokens=1))
        assert collected.text.endswith(part)
    assert collected.text == "".join(parts)
    assert collected.completion({"finish_reason": "stop"}).text == "".join(parts)
    assert collected.tokens == len(parts)


def test_a_message_gets_content_reasoning_and_tool_calls() -> None:
    collected = Collector()
    collected.add(Delta(reasoning="be"))
    collected.add(Delta(reasoning="cause", text="Yes"))
    call = {"index": 0, "id": "c1", "type": "function"}
    collected.add(Delta(tool_calls=[{**call, "function": {"name": "f", "arguments": '{"a"'}}]))
    collected.add(Delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]))
    result = collected.chat_completion({"message": {"role": "assistant", "content": ""}})
    assert result.message == {
        "role": "assistant",
        "content": "Yes",
        "reasoning": "because",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        ],
    }
    assert result.text == "Yes"
