"""`/v1/responses`, without state: bodies to asks, results to responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Bool, Field, Float, Int, ListOf, OneOf, Struct, Text
from hybridd.core.options import SAMPLING
from hybridd.core.requests import ANY_OBJECT
from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.openai.chat import offered_tools
from hybridd.http.faces.openai.options import COMMON, ask, check_format, sampling
from hybridd.http.faces.openai.response_items import conversation, tools
from hybridd.http.faces.openai.response_stream import ResponseWriter
from hybridd.http.faces.openai.response_whole import Response
from hybridd.http.faces.shared import bodies, model_names
from hybridd.wire.errors import Unsupported

_FIELDS: Mapping[str, Field] = {
    **COMMON,
    "input": OneOf((Text(), ListOf(Struct({}, open=True), max_length=100_000))),
    "instructions": OneOf((Text(), ListOf(Struct({}, open=True)))),
    "max_output_tokens": Int(0),
    "temperature": Float(0, 100),
    "top_p": SAMPLING["top_p"].field,
    "tools": ListOf(Struct({}, open=True), max_length=100_000),
    "tool_choice": OneOf((Text(1, 64), ANY_OBJECT)),
    "stream": Bool(),
    "text": ANY_OBJECT,
    "previous_response_id": Text(),
    "conversation": OneOf((Text(), ANY_OBJECT)),
    "background": Bool(),
    "chat_template_kwargs": ANY_OBJECT,
}
BODY = Struct(_FIELDS, required=("model", "input"), open=True, what="a response")
# A conversation of nothing, which clients send to have a model loaded.
_NOTHING = [{"role": "user", "content": ""}]


async def responses(call: Call) -> Answer:
    """Answer, at once or in events."""
    body = bodies.read(BODY, call.body)
    asked = response_ask(body, autoload=call.autoload)
    model = (await model_names.record(call.daemon, asked.model)).id
    response = Response("resp_" + call.id.removeprefix("req_"), int(call.created), model, body)
    if body.get("stream"):
        return Streamed([asked], ResponseWriter(response))
    return Reply(response.of_result(await call.infer(asked)))


def response_ask(body: Mapping[str, Any], *, autoload: bool) -> Ask:
    """What a body asks, whose fields were checked.

    Raises:
        Unsupported, InvalidParams: What cannot be done, by name.
    """
    for name in ("previous_response_id", "conversation"):
        if body.get(name):
            raise Unsupported(
                f"responses are not kept here ({name}); send the whole conversation as input",
                capability=name,
            )
    if body.get("background"):
        raise Unsupported("there is no work in the background; stream it", capability="background")
    check_format((body.get("text") or {}).get("format"), "text.format")
    request = {
        "messages": conversation(body.get("instructions"), body["input"]) or _NOTHING,
        "tools": offered_tools(tools(body.get("tools")), body.get("tool_choice")),
        "chat_template_kwargs": body.get("chat_template_kwargs") or {},
    }
    return ask("chat", body, request, sampling(body), autoload)
