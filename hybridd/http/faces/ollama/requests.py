"""The bodies of Ollama's requests as what is asked of a model. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Bool, Field, Int, ListOf, OneOf, Struct, Text
from hybridd.core.model import ModelRecord
from hybridd.core.requests import COUNT, MODEL
from hybridd.http.faces.api import Ask
from hybridd.http.faces.ollama import messages, options
from hybridd.http.faces.shared import keep_alive
from hybridd.wire.errors import Unsupported

_ANY = Struct({}, open=True)
_ANYTHING = Field()
_ASKED: Mapping[str, Field] = {
    "model": MODEL,
    "options": _ANY,
    "keep_alive": keep_alive.FIELD,
}
_GENERATED: Mapping[str, Field] = {
    **_ASKED,
    "stream": Bool(),
    "format": OneOf((Text(), _ANY)),
    "think": OneOf((Bool(), Text())),
    "logprobs": Bool(),
    "top_logprobs": Int(0, 20),
    "shift": Bool(),
    "truncate": Bool(),
}


def _body(fields: Mapping[str, Field], *required: str) -> Struct:
    return Struct(fields, required=("model", *required), open=True)


GENERATE = _body(
    {
        **_GENERATED,
        "prompt": Text(),
        "suffix": Text(),
        "system": Text(),
        "template": Text(),
        "raw": Bool(),
        "images": ListOf(Text()),
        "context": _ANYTHING,
    }
)
CHAT = _body({**_GENERATED, "messages": ListOf(_ANY), "tools": ListOf(_ANY)})
EMBED = _body(
    {
        **_ASKED,
        "input": OneOf((Text(), ListOf(Text()))),
        "truncate": Bool(),
        "dimensions": OneOf((Int(0, 0), COUNT)),
    }
)
EMBEDDINGS = _body({**_ASKED, "prompt": Text()})
NAMED = Struct({"model": MODEL, "name": MODEL}, open=True)
PULL = Struct({"model": MODEL, "name": MODEL, "stream": Bool()}, open=True)


def generate(body: Mapping[str, Any], record: ModelRecord, *, autoload: bool) -> Ask:
    """What `/api/generate` asks: a conversation where the model has a chat template.

    Args:
        body: The fields that are set, as `GENERATE` takes them.

    Raises:
        InvalidParams, Unsupported: What is wrong with it, by name.
    """
    for name, capability in (("suffix", "infill"), ("template", "template")):
        if body.get(name):
            raise Unsupported(f"{name} is not supported yet; leave it out", capability=capability)
    text, system, images = body.get("prompt", ""), body.get("system"), body.get("images")
    plain = body.get("raw") or "chat" not in record.facts.capabilities
    if plain and not (system or images):
        # A client that sends a raw prompt wrote its template's tokens into it.
        request = {"prompt": text, "special": body.get("raw", False)}
        return _asked("generate", record, request, body, autoload)
    if body.get("raw"):
        raise Unsupported(
            "a raw prompt goes without system and images; put them into the prompt, or leave raw "
            "out",
            capability="raw",
        )
    return _chat(messages.prompt(system, text, images), None, body, record, autoload)


def chat(body: Mapping[str, Any], record: ModelRecord, *, autoload: bool) -> Ask:
    """What `/api/chat` asks.

    Raises:
        InvalidParams, Unsupported: What is wrong with it, by name.
    """
    said = messages.conversation(body["messages"])
    return _chat(said, body.get("tools") or None, body, record, autoload)


def _chat(
    said: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    body: Mapping[str, Any],
    record: ModelRecord,
    autoload: bool,
) -> Ask:
    request = {
        "messages": said,
        "tools": tools,
        "chat_template_kwargs": options.thinking(body.get("think")),
    }
    return _asked("chat", record, request, body, autoload)


def _asked(
    kind: str,
    record: ModelRecord,
    request: Mapping[str, Any],
    body: Mapping[str, Any],
    autoload: bool,
) -> Ask:
    options.refuse_format(body.get("format"))
    sampling = {
        **options.sampling(body.get("options")),
        **options.logprobs(body.get("logprobs"), body.get("top_logprobs")),
    }
    if body.get("shift"):
        sampling["context_shift"] = True
    return Ask(
        kind,
        record.id,
        request,
        sampling,
        options.load_options(body.get("options")),
        keep_alive.seconds(body.get("keep_alive")),
        autoload=autoload,
    )


def embed(
    texts: list[str],
    body: Mapping[str, Any],
    record: ModelRecord,
    *,
    normalize: bool,
    autoload: bool,
) -> Ask:
    """What `/api/embed` and `/api/embeddings` ask."""
    request = {
        "input": texts,
        "dimensions": body.get("dimensions") or None,
        "normalize": normalize,
    }
    return Ask(
        "embed",
        record.id,
        request,
        load_options=options.load_options(body.get("options")),
        keepalive=keep_alive.seconds(body.get("keep_alive")),
        autoload=autoload,
    )
