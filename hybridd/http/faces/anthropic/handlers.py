"""`/v1/messages` and its `count_tokens`."""

from __future__ import annotations

from hybridd.core.model import ModelRecord
from hybridd.http.faces.anthropic import answers, requests
from hybridd.http.faces.anthropic.events import MessageWriter
from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.shared import bodies, model_names
from hybridd.wire.errors import ModelNotFound


async def messages(call: Call) -> Answer:
    """Answer a conversation, at once or in events."""
    body = bodies.read(requests.BODY, call.body)
    ask = requests.chat(body, autoload=call.autoload)
    id = "msg_" + call.id.removeprefix("req_")
    if body.get("stream"):
        # The first event names the model that answers.
        model = (await _record(call, ask.model)).id
        return Streamed((ask,), MessageWriter(id, model, body.get("max_tokens")))
    await _record(call, ask.model)
    return Reply(answers.message(id, await call.infer(ask), body.get("max_tokens")))


async def count_tokens(call: Call) -> Answer:
    """How many tokens a conversation's prompt has; pictures count as little as their marks."""
    body = bodies.read(requests.COUNTED, call.body)
    asked = requests.prompted(body)
    model = (await _record(call, body["model"])).id
    made = await call.infer(Ask("apply_template", model, asked, autoload=call.autoload))
    text = {"text": made["prompt"], "special": True}
    counted = await call.infer(Ask("tokenize", model, text, autoload=call.autoload))
    return Reply({"input_tokens": len(counted["tokens"])})


async def _record(call: Call, name: str) -> ModelRecord:
    """The model that is meant; an error says how one stands in for Anthropic's own."""
    try:
        return await model_names.record(call.daemon, name)
    except ModelNotFound as exc:
        if not name.startswith("claude-"):
            raise
        raise ModelNotFound(
            f"{exc.message}; the setting http.model_map says which model stands in for it: "
            'hybridctl config set http.model_map "claude-*=MODEL"',
            **exc.data,
        ) from None
