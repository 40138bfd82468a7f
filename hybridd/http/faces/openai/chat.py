"""`/v1/chat/completions`: bodies to asks, results to answers. Pure but for the handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.core.fields import Bool, Field, ListOf, OneOf, Struct, Text
from hybridd.core.requests import ANY_OBJECT
from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.openai import logprobs, thinking, tools
from hybridd.http.faces.openai.chat_stream import ChatWriter, tool_call
from hybridd.http.faces.openai.messages import MESSAGES, conversation, deprecated_functions
from hybridd.http.faces.openai.options import (
    ANSWERS,
    GENERATING,
    answers,
    ask,
    check_format,
    include_usage,
    sampling,
    told_alternatives,
    usage,
)
from hybridd.http.faces.shared import bodies, model_names
from hybridd.http.faces.shared.together import results as all_results
from hybridd.wire.errors import InvalidParams, Unsupported

_FIELDS: Mapping[str, Field] = {
    **GENERATING,
    **ANSWERS,
    **tools.FIELDS,
    "messages": MESSAGES,
    "functions": ListOf(Struct({}, open=True)),
    "function_call": OneOf((Text(), ANY_OBJECT)),
    "logprobs": Bool(),
    "chat_template_kwargs": ANY_OBJECT,
    "reasoning_effort": Text(0, 64),
    "modalities": ListOf(Text()),
}
BODY = Struct(_FIELDS, required=("model", "messages"), open=True, what="a chat")


async def chat(call: Call) -> Answer:
    """Answer a conversation, at once or in chunks."""
    body = bodies.read(BODY, call.body)
    asked = chat_ask(body, autoload=call.autoload)
    asks = answers(asked, body.get("n", 1))
    model = (await model_names.record(call.daemon, asked.model)).id
    id, created = "chatcmpl-" + call.id.removeprefix("req_"), int(call.created)
    told = alternatives(body)
    if body.get("stream"):
        writer = ChatWriter(id, created, model, len(asks), told, usage=include_usage(body))
        return Streamed(asks, writer)
    return Reply(completion(id, created, await all_results(call, asks), told))


def chat_ask(body: Mapping[str, Any], *, autoload: bool) -> Ask:
    """What a body asks, whose fields were checked.

    Raises:
        Unsupported, InvalidParams: What cannot be done, by name.
    """
    check_format(body.get("response_format"))
    if body.get("functions"):
        raise deprecated_functions("functions")
    if "audio" in (body.get("modalities") or ()):
        raise Unsupported("models speak no audio here (modalities)", capability="audio")
    request = {
        "messages": conversation(body["messages"]),
        "tools": tools.offered(body.get("tools"), body.get("tool_choice")),
        "chat_template_kwargs": thinking.template_arguments(
            body.get("chat_template_kwargs"), body.get("reasoning_effort")
        ),
    }
    options = told_alternatives(sampling(body), alternatives(body))
    return ask("chat", body, request, options, autoload)


def alternatives(body: Mapping[str, Any]) -> int | None:
    """How many alternatives are told with each token; None where nothing is told.

    Raises:
        InvalidParams: Some are asked for, but no log probabilities.
    """
    count: int = body.get("top_logprobs", 0)
    if body.get("logprobs"):
        return count
    if count:
        reason = "needs logprobs: true"
        raise InvalidParams(f"top_logprobs {reason}", field="top_logprobs", reason=reason)
    return None


def completion(
    id: str, created: int, results: Sequence[Mapping[str, Any]], told: int | None
) -> dict[str, Any]:
    """A whole answer to one prompt, of one result for each choice."""
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": results[0]["model"],
        "choices": [_choice(id, index, result, told) for index, result in enumerate(results)],
        "usage": usage(results, len(results)),
        "timings": results[0].get("timings"),
    }


def _choice(id: str, index: int, result: Mapping[str, Any], told: int | None) -> dict[str, Any]:
    said = result["message"]
    calls = [tool_call(id, index, n, call) for n, call in enumerate(said.get("tool_calls") or ())]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said.get("content") or (None if calls else ""),
        "refusal": None,
    }
    if said.get("reasoning"):
        message["reasoning_content"] = said["reasoning"]
    if calls:
        message["tool_calls"] = calls
    entries = result.get("logprobs")
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs.of_chat(entries, told or 0) if entries else None,
        "finish_reason": finish_reason(result, called=bool(calls)),
    }


def finish_reason(result: Mapping[str, Any], *, called: bool) -> str:
    """Why a generation ended; one that ended by itself with calls ended for them."""
    reason = str(result.get("finish_reason") or "stop")
    return "tool_calls" if called and reason == "stop" else reason
