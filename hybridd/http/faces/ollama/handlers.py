"""Ollama's `generate`, `chat`, `embed` and `embeddings`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.ollama import answers, lines, names, options, requests
from hybridd.http.faces.ollama.truncation import embedded
from hybridd.http.faces.shared import bodies, keep_alive, vectors


async def generate(call: Call) -> Answer:
    """Go on from a prompt; without one, load the model or unload it."""
    body = bodies.read(requests.GENERATE, call.body)
    record = await names.record(call.daemon, body["model"])
    if not (body.get("prompt") or body.get("images") or body.get("suffix")):
        return await _moved(call, record, body, lines.RESPONSE)
    ask = requests.generate(body, record, autoload=call.autoload)
    return await _answered(call, ask, body, lines.RESPONSE)


async def chat(call: Call) -> Answer:
    """Answer a conversation; without messages, load the model or unload it."""
    body = bodies.read(requests.CHAT, call.body)
    record = await names.record(call.daemon, body["model"])
    if not body.get("messages"):
        return await _moved(call, record, body, lines.MESSAGE)
    ask = requests.chat(body, record, autoload=call.autoload)
    return await _answered(call, ask, body, lines.MESSAGE)


async def embed(call: Call) -> Answer:
    """A vector of length 1 for each text; one that is too long is cut, unless told not to."""
    started = time.monotonic()
    body = bodies.read(requests.EMBED, call.body)
    record = await names.record(call.daemon, body["model"])
    given = body.get("input", [])
    texts = given if isinstance(given, list) else [given] if given else []
    if not texts:
        await _loaded(call, record, body)
        return Reply({"model": body["model"], "embeddings": []})
    ask = requests.embed(texts, body, record, normalize=True, autoload=call.autoload)
    result = await embedded(call, ask, truncate=body.get("truncate", True))
    told = {
        "model": body["model"],
        "total_duration": answers.nanoseconds(time.monotonic() - started),
        "prompt_eval_count": result["usage"]["prompt_tokens"],
    }
    return Reply(vectors.with_vectors(told, "embeddings", result["embeddings"]))


async def embeddings(call: Call) -> Answer:
    """One text's vector, as the model makes it."""
    body = bodies.read(requests.EMBEDDINGS, call.body)
    record = await names.record(call.daemon, body["model"])
    if not body.get("prompt"):
        await _loaded(call, record, body)
        return Reply({"embedding": []})
    ask = requests.embed([body["prompt"]], body, record, normalize=False, autoload=call.autoload)
    result = await embedded(call, ask, truncate=True)
    return Reply(vectors.with_vector({}, "embedding", result["embeddings"][0]))


async def _answered(call: Call, ask: Ask, body: Mapping[str, Any], shape: lines.Shape) -> Answer:
    """The answer, in lines unless it is asked for whole."""
    model, alternatives = body["model"], body.get("top_logprobs", 0)
    if body.get("stream", True):
        return Streamed((ask,), lines.LineWriter(shape, model, alternatives))
    result = await call.infer(ask)
    return Reply(lines.answer(shape, model, time.time(), result, alternatives))


async def _moved(
    call: Call, record: ModelRecord, body: Mapping[str, Any], shape: lines.Shape
) -> Answer:
    """Load the model; a `keep_alive` of 0 unloads it."""
    if keep_alive.seconds(body.get("keep_alive")) == 0:
        await call.daemon.manager.unload(record.id)
        reason = "unload"
    else:
        await _loaded(call, record, body)
        reason = "load"
    return Reply(
        {
            "model": body["model"],
            "created_at": answers.timestamp(time.time()),
            **shape.fields({}),
            "done": True,
            "done_reason": reason,
        }
    )


async def _loaded(call: Call, record: ModelRecord, body: Mapping[str, Any]) -> None:
    await call.daemon.manager.load(
        record.id,
        load_options=options.load_options(body.get("options")),
        keepalive=keep_alive.seconds(body.get("keep_alive")),
    )
