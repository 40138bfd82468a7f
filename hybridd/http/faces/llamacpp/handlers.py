"""llama-server's native `/completion`, `/infill`, `/tokenize` and their kin."""

from __future__ import annotations

from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.llamacpp import answers, models, requests
from hybridd.http.faces.shared import bodies, together
from hybridd.wire.errors import Unsupported


async def completion(call: Call) -> Answer:
    """Go on from a prompt, or from several."""
    body = bodies.read(requests.COMPLETION, call.body)
    model = await models.meant(call, body.get("model"))
    asks = requests.completions(body, model.id, autoload=call.autoload)
    if body.get("stream"):
        return Streamed(asks, answers.CompletionWriter())
    made = await together.results(call, asks)
    told = [answers.completion(index, result) for index, result in enumerate(made)]
    return Reply(told if requests.several(body["prompt"]) or len(told) > 1 else told[0])


async def infill(call: Call) -> Answer:
    """Fill a gap in code; no engine here does that yet."""
    body = bodies.read(requests.INFILL, call.body)
    model = await models.meant(call, body.get("model"))
    requests.infill(body)
    raise Unsupported(
        f"filling in code (infill) is not supported yet; {model.id} can go on from a prompt "
        "(/completion)",
        capability="infill",
    )


async def tokenize(call: Call) -> Answer:
    """A text's tokens; special ones are read from it unless `parse_special` is false."""
    body = bodies.read(requests.TOKENIZE, call.body)
    model = await models.meant(call, body.get("model"))
    result = await call.infer(requests.tokenize(body, model.id, autoload=call.autoload))
    return Reply({"tokens": result["tokens"]})


async def detokenize(call: Call) -> Answer:
    """The text of tokens."""
    body = bodies.read(requests.DETOKENIZE, call.body)
    model = await models.meant(call, body.get("model"))
    ask = Ask("detokenize", model.id, {"tokens": body["tokens"]}, autoload=call.autoload)
    return Reply({"content": (await call.infer(ask))["text"]})


async def apply_template(call: Call) -> Answer:
    """The prompt that a conversation becomes."""
    body = bodies.read(requests.TEMPLATE, call.body)
    model = await models.meant(call, body.get("model"))
    result = await call.infer(requests.template(body, model.id, autoload=call.autoload))
    return Reply({"prompt": result["prompt"]})
