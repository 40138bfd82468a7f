"""Anthropic's routes through the gateway, with a manager that is a fake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from hybridd.http.faces.anthropic import FACE
from tests.http.faces.anthropic.test_events import rebuilt
from tests.http.faces.support import generates
from tests.http.support import FakeManager, MemoryExchange, answered

SAID = [{"role": "user", "content": "Hi"}]


async def post(path: str = "", manager: FakeManager | None = None, **body: Any) -> MemoryExchange:
    manager = manager or FakeManager(generates("Hel", "lo"))
    sent = {"model": "m", "max_tokens": 64_000, "messages": SAID, **body}
    return await answered([FACE], "POST", f"/v1/messages{path}", sent, manager=manager)


async def test_a_message_comes_whole_and_in_events_alike() -> None:
    whole = await post("?beta=true")
    assert whole.status == 200
    streamed = await post("?beta=true", stream=True)
    assert streamed.headers["content-type"] == "text/event-stream"
    assert whole.headers["request-id"].startswith("req_")
    assert streamed.headers["request-id"] != whole.headers["request-id"]
    one, other = whole.json, rebuilt(b"".join(streamed.stream.pieces))
    assert one.pop("id").startswith("msg_")
    assert other.pop("id").startswith("msg_")
    assert one == other
    assert one["content"] == [{"type": "text", "text": "Hello"}]


async def test_what_claude_code_sends_is_understood() -> None:
    manager = FakeManager(generates("Yes."))
    asked = await post(
        manager=manager,
        model="claude-opus-5",
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        tools=[{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
        thinking={"type": "adaptive"},
        context_management={"edits": []},
        output_config={"effort": "high"},
        metadata={"user_id": "u"},
        temperature=1,
        top_k=2**40,
        stop_sequences=["END"],
        stream=True,
    )
    assert asked.status == 200
    [request] = manager.asked
    assert request["model"] == "ours"  # by http.model_map
    assert request["request"] == {
        "messages": [{"role": "system", "content": "Be brief."}, *SAID],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Looks.",
                    "parameters": {"type": "object"},
                },
            }
        ],
        "chat_template_kwargs": {},
    }
    assert request["options"] == {
        "temperature": 1.0,
        "max_tokens": 64_000,
        "top_k": 2**31 - 1,
        "stop": ["END"],
    }
    assert rebuilt(b"".join(asked.stream.pieces))["model"] == "ours"


@pytest.mark.parametrize(("kind", "told"), [("enabled", True), ("disabled", False)])
async def test_whether_to_think_is_told_to_the_template(kind: str, told: bool) -> None:
    manager = FakeManager(generates("Yes."))
    await post(manager=manager, thinking={"type": kind, "budget_tokens": 1024})
    assert manager.asked[0]["request"]["chat_template_kwargs"] == {"enable_thinking": told}


async def test_null_is_not_set() -> None:
    manager = FakeManager(generates("Yes."))
    nulls = dict.fromkeys(("system", "tools", "tool_choice", "stop_sequences", "top_k", "thinking"))
    assert (await post(manager=manager, **nulls)).status == 200
    assert manager.asked[0]["options"] == {"max_tokens": 64_000}


@dataclass
class Counting(FakeManager):
    """A model whose prompt is what was said, each character a token."""

    kinds: list[str] = field(default_factory=list)

    async def infer(
        self, kind: str, model: str, request: Mapping[str, Any], **others: Any
    ) -> dict[str, Any]:
        self.kinds.append(kind)
        if kind == "apply_template":
            return {"prompt": "".join(m["content"] for m in request["messages"])}
        assert request["special"] is True
        return {"tokens": list(range(len(request["text"])))}


async def test_tokens_are_counted_with_the_template() -> None:
    manager = Counting()
    counted = await post("/count_tokens", manager=manager, system="12345")
    assert counted.json == {"input_tokens": 7}
    assert manager.kinds == ["apply_template", "tokenize"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"model": None}, "model"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
        ({"temperature": float("1e9")}, "temperature"),
    ],
)
async def test_what_is_wrong_is_named_in_anthropics_shape(body: dict[str, Any], words: str) -> None:
    refused = await post(**body)
    assert refused.status == 400
    assert refused.json["type"] == "error"
    assert refused.json["error"]["type"] == "invalid_request_error"
    assert words in refused.json["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_is_not_there_is_not_found(stream: bool) -> None:
    refused = await post(model="none", stream=stream)
    assert (refused.status, refused.json["error"]["type"]) == (404, "not_found_error")
    assert "model_map" not in refused.json["error"]["message"]


async def test_a_name_of_theirs_without_a_stand_in_says_how_there_will_be_one() -> None:
    refused = await post(model="claude-opus-5", manager=FakeManager(models=()))
    assert refused.status == 404
    assert "http.model_map" in refused.json["error"]["message"]


async def test_a_path_below_has_the_shape_too() -> None:
    refused = await answered([FACE], "GET", "/v1/messages/batches")
    assert (refused.status, refused.json["type"]) == (404, "error")
