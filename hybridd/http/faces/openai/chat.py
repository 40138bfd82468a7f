"""`/v1/chat/completions`: bodies to asks, results to answers. Pure but for the handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.core.fields import Bool, Field, ListOf, OneOf, Struct, Text
from hybridd.core.options import MESSAGES, TOOLS
from hybridd.core.requests import ANY_OBJECT
from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.openai import logprobs
from hybridd.http.faces.openai.chat_stream import ChatWriter
from hybridd.http.faces.openai.options import (
    GENERATING,
    ask,
    check_format,
    include_usage,
    sampling,
    usage,
)
from hybridd.http.faces.shared import bodies, model_names
from hybridd.wire.errors import Unsupported

_FIELDS: Mapping[str, Field] = {
    **GENERATING,
    "messages": MESSAGES,
    "tools": TOOLS,
    "tool_choice": OneOf((Text(1, 64), ANY_OBJECT)),
    "functions": ListOf(Struct({}, open=True)),
    "function_call": OneOf((Text(), ANY_OBJECT)),
    "logprobs": Bool(),
    "chat_template_kwargs": ANY_OBJECT,
    "modalities": ListOf(Text()),
}
BODY = Struct(_FIELDS, required=("model", "messages"), open=True, what="a chat")


async def chat(call: Call) -> Answer:
    """Answer a conversation, at once or in chunks."""
    body = bodies.read(BODY, call.body)
    asks = [made := chat_ask(body, autoload=call.autoload)] * body.get("n", 1)
    model = (await model_names.record(call.daemon, made.model)).id
    id, created = "chatcmpl-" + call.id.removeprefix("req_"), int(call.created)
    told = alternatives(body)
    if body.get("stream"):
        writer = ChatWriter(id, created, model, len(asks), told, usage=include_usage(body))
        return Streamed(asks, writer)
    return Reply(completion(id, created, [await call.infer(each) for each in asks], told))


def chat_ask(body: Mapping[str, Any], *, autoload: bool) -> Ask:
    """What a body asks, whose fields were checked.

    Raises:
        Unsupported: What cannot be done, by name.
    """
    check_format(body.get("response_format"))
    if body.get("functions"):
        raise Unsupported("functions were replaced by tools; send tools", capability="functions")
    if "audio" in (body.get("modalities") or ()):
        raise Unsupported("models speak no audio here (modalities)", capability="audio")
    told = alternatives(body)
    options = sampling(body)
    if told is not None:
        # At least one, for without alternatives the engine tells nothing.
        options["logprobs"] = max(1, told)
    request = {
        "messages": [_message(message) for message in body["messages"]],
        "tools": offered_tools(body.get("tools"), body.get("tool_choice")),
        "chat_template_kwargs": body.get("chat_template_kwargs") or {},
    }
    return ask("chat", body, request, options, autoload)


def alternatives(body: Mapping[str, Any]) -> int | None:
    """How many alternatives are told with each token; None where nothing is told."""
    return body.get("top_logprobs", 0) if body.get("logprobs") else None


def offered_tools(tools: Any, choice: Any) -> list[dict[str, Any]] | None:
    """The tools that the model is offered: functions alone, for the others are servers' own.

    Raises:
        Unsupported: One of them has to be called.
    """
    if choice not in (None, "auto", "none"):
        raise Unsupported(
            "forcing a tool (tool_choice) is not supported yet; leave it out",
            capability="tool_choice",
        )
    if choice == "none":
        return None
    return [tool for tool in tools or () if tool.get("type") == "function"] or None


def completion(
    id: str, created: int, results: Sequence[Mapping[str, Any]], told: int | None
) -> dict[str, Any]:
    """A whole answer, of one result for each choice."""
    spent = usage(list(results))
    if len(results) > 1:
        # One prompt was sent, however many answers it got.
        once = usage([results[0]])
        spent["prompt_tokens"] = once["prompt_tokens"]
        spent["total_tokens"] = spent["prompt_tokens"] + spent["completion_tokens"]
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": results[0]["model"],
        "choices": [_choice(index, result, told) for index, result in enumerate(results)],
        "usage": spent,
        "timings": results[0].get("timings"),
    }


def _choice(index: int, result: Mapping[str, Any], told: int | None) -> dict[str, Any]:
    message = dict(result["message"])
    if (reasoning := message.pop("reasoning", None)) is not None:
        message["reasoning_content"] = reasoning
    called = bool(message.get("tool_calls"))
    if called and not message.get("content"):
        message["content"] = None
    entries = result.get("logprobs")
    return {
        "index": index,
        "message": {"refusal": None, **message},
        "logprobs": logprobs.of_chat(entries, told or 0) if entries else None,
        "finish_reason": finish_reason(result, called=called),
    }


def finish_reason(result: Mapping[str, Any], *, called: bool) -> str:
    """Why a generation ended; one that ended by itself with calls ended for them."""
    reason = str(result.get("finish_reason") or "stop")
    return "tool_calls" if called and reason == "stop" else reason


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the protocol takes it.

    Raises:
        Unsupported: It has a part that no model here takes.
    """
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if part.get("type") not in ("text", "image_url", "refusal"):
            raise Unsupported(
                f"content parts of type {str(part.get('type'))[:40]} are not supported; send text "
                "and image_url",
                capability="content_parts",
            )
    return {name: value for name, value in message.items() if value is not None}
