"""`/v1/responses`, without state: bodies to asks, results to responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Bool, Field, ListOf, OneOf, Struct, Text
from hybridd.core.requests import ANY_OBJECT
from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.openai import thinking, tools
from hybridd.http.faces.openai.options import (
    GENERATING,
    ask,
    check_format,
    sampling,
    told_alternatives,
)
from hybridd.http.faces.openai.response_items import conversation
from hybridd.http.faces.openai.response_stream import ResponseWriter
from hybridd.http.faces.openai.response_whole import Response
from hybridd.http.faces.shared import bodies, model_names
from hybridd.wire.errors import Unsupported

_ITEMS = ListOf(Struct({}, open=True, what="an item"), max_length=100_000)
_FIELDS: Mapping[str, Field] = {
    **GENERATING,
    **tools.FIELDS,
    "input": OneOf((Text(), _ITEMS)),
    "instructions": OneOf((Text(), _ITEMS)),
    "include": ListOf(Text()),
    "text": ANY_OBJECT,
    "reasoning": ANY_OBJECT,
    "chat_template_kwargs": ANY_OBJECT,
    "previous_response_id": Text(),
    "conversation": OneOf((Text(), ANY_OBJECT)),
    "prompt": ANY_OBJECT,
    "background": Bool(),
}
BODY = Struct(_FIELDS, required=("model", "input"), open=True, what="a response")
_LOGPROBS = "message.output_text.logprobs"
# A conversation of nothing, which clients send to have a model loaded.
_NOTHING = [{"role": "user", "content": ""}]


async def responses(call: Call) -> Answer:
    """Answer, at once or in events."""
    body = bodies.read(BODY, call.body)
    asked = response_ask(body, autoload=call.autoload)
    model = (await model_names.record(call.daemon, asked.model)).id
    id = "resp_" + call.id.removeprefix("req_")
    response = Response(id, int(call.created), model, body, alternatives(body))
    if body.get("stream"):
        return Streamed([asked], ResponseWriter(response))
    return Reply(response.of_result(await call.infer(asked)))


def response_ask(body: Mapping[str, Any], *, autoload: bool) -> Ask:
    """What a body asks, whose fields were checked.

    Raises:
        Unsupported, InvalidParams: What cannot be done, by name.
    """
    for name in ("previous_response_id", "conversation", "prompt"):
        if body.get(name):
            raise Unsupported(
                f"nothing is kept here between requests ({name}); send the whole conversation as "
                "input",
                capability=name,
            )
    if body.get("background"):
        raise Unsupported("there is no work in the background; stream it", capability="background")
    check_format((body.get("text") or {}).get("format"), "text.format")
    request = {
        "messages": conversation(body.get("instructions"), body["input"]) or _NOTHING,
        "tools": tools.offered(body.get("tools"), body.get("tool_choice")),
        "chat_template_kwargs": thinking.template_arguments(
            body.get("chat_template_kwargs"), (body.get("reasoning") or {}).get("effort")
        ),
    }
    options = told_alternatives(sampling(body), alternatives(body))
    return ask("chat", body, request, options, autoload)


def alternatives(body: Mapping[str, Any]) -> int | None:
    """How many alternatives are told with each token; None where nothing is told."""
    count: int = body.get("top_logprobs", 0)
    return count if count or _LOGPROBS in (body.get("include") or ()) else None
