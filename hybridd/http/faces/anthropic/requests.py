"""The body of `/v1/messages` as what is asked of a model. Pure.

What only Anthropic's servers do with a request (`metadata`, `cache_control`, `context_management`,
`service_tier`, efforts and budgets) is ignored: an answer is right without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Bool, Field, Float, Int, ListOf, OneOf, Struct, Text
from hybridd.core.requests import MODEL
from hybridd.http.faces.anthropic.blocks import conversation
from hybridd.http.faces.anthropic.tools import offered
from hybridd.http.faces.api import Ask
from hybridd.wire.errors import Unsupported

_ANY = Struct({}, open=True)
_OBJECTS = ListOf(_ANY, max_length=100_000)
_CONVERSATION: Mapping[str, Field] = {
    "model": MODEL,
    "messages": ListOf(_ANY, min_length=1, max_length=100_000),
    "system": OneOf((Text(), _OBJECTS)),
    "tools": _OBJECTS,
    "tool_choice": _ANY,
    "thinking": _ANY,
}
COUNTED = Struct(_CONVERSATION, required=("model", "messages"), open=True)
BODY = Struct(
    {
        **_CONVERSATION,
        "max_tokens": Int(0),
        "stream": Bool(),
        "temperature": Float(0, 100),
        "top_k": Int(0),
        "top_p": Float(0, 1),
        "stop_sequences": ListOf(Text(1, 1024), max_length=64),
        "output_config": _ANY,
        "output_format": _ANY,
        "mcp_servers": ListOf(_ANY),
    },
    required=("model", "messages"),
    open=True,
)
_MOST = 2**31 - 1


def chat(body: Mapping[str, Any], *, autoload: bool) -> Ask:
    """What `/v1/messages` asks.

    Args:
        body: The fields that are set, as `BODY` takes them.

    Raises:
        InvalidParams, Unsupported: What is wrong with it, by name.
    """
    _refuse(body)
    options = {name: body.get(name) for name in ("temperature", "top_p")}
    for name in ("max_tokens", "top_k"):
        # Far more than any context has is usual.
        options[name] = min(body[name], _MOST) if name in body else None
    options["stop"] = body.get("stop_sequences") or None
    return Ask("chat", body["model"], prompted(body), options, autoload=autoload)


def prompted(body: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the prompt: of a `chat`, and of an `apply_template` that counts its tokens."""
    return {
        "messages": conversation(body.get("system"), body["messages"]),
        "tools": offered(body.get("tools"), body.get("tool_choice")),
        "chat_template_kwargs": _thinking(body.get("thinking") or {}),
    }


def _thinking(thinking: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat template is told that knows of thinking; `adaptive` leaves it to the model."""
    said = {"enabled": True, "disabled": False}.get(str(thinking.get("type")))
    return {} if said is None else {"enable_thinking": said}


def _refuse(body: Mapping[str, Any]) -> None:
    if body.get("output_format") or body.get("output_config", {}).get("format"):
        raise Unsupported(
            "constrained output (output_config.format) is not supported yet; leave it out",
            capability="response_format",
        )
    if body.get("mcp_servers"):
        raise Unsupported(
            "hybridd connects to no servers of tools (mcp_servers); let the client do that and "
            "send their tools",
            capability="mcp_servers",
        )
