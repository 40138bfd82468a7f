"""Ollama's `tags`, `ps`, `show`, `version` and `pull`: which models there are and what they are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hybridd import __version__
from hybridd.core.devices import CPU
from hybridd.core.model import ModelRecord
from hybridd.http.faces.api import NDJSON, Answer, Call, Reply
from hybridd.http.faces.ollama import answers, names
from hybridd.http.faces.ollama.requests import NAMED, PULL
from hybridd.http.faces.shared import bodies
from hybridd.http.faces.shared.listing import listed
from hybridd.http.problems import Problem
from hybridd.wire.errors import ModelNotFound, Unsupported
from hybridd.wire.framing import encode_line
from hybridd.wire.units import format_count

# The release of Ollama's whose API this is, as far as clients ask: Codex wants no older one.
API_VERSION = "0.13.5"
# How Ollama writes that a model stays for ever: its clients take more than a century for that.
_FOREVER_S = 292 * 365 * 24 * 3600
_CAPABILITIES = {
    "completion": "completion",
    "tools": "tools",
    "vision": "vision",
    "audio": "audio",
    "reasoning": "thinking",
    "embedding": "embedding",
    "infill": "insert",
}
# The names that GGUF has for what is known of a model of any format; {} is its architecture.
_INFO = {
    "context_length": "{}.context_length",
    "embedding_length": "{}.embedding_length",
    "feed_forward_length": "{}.feed_forward_length",
    "layers": "{}.block_count",
    "heads": "{}.attention.head_count",
    "vocab_size": "{}.vocab_size",
    "parameters": "general.parameter_count",
}


async def version(call: Call) -> Answer:
    """Which API this is, and which hybridd."""
    return Reply({"version": API_VERSION, "hybridd": __version__})


async def tags(call: Call) -> Answer:
    """Every model that can be loaded."""
    return Reply({"models": [tag(record) async for record, _ in listed(call.daemon)]})


async def ps(call: Call) -> Answer:
    """The models in memory or coming up."""
    records = call.daemon.manager.listed()
    loaded = await call.daemon.manager.loaded()
    return Reply({"models": [running(each, records.get(each["id"])) for each in loaded]})


async def show(call: Call) -> Answer:
    """One model, with what its files say of it."""
    body = bodies.read(NAMED, call.body)
    return Reply(shown(await names.record(call.daemon, names.named(body))))


async def pull(call: Call) -> Answer:
    """Nothing to do for a model that is here; hybridd downloads none."""
    body = bodies.read(PULL, call.body)
    name, streamed = names.named(body), body.get("stream", True)
    try:
        await names.record(call.daemon, name)
    except ModelNotFound as exc:
        refusal = Unsupported(
            f"there is no model {name!r} here, and hybridd does not download models; put it into a "
            "directory that hybridd looks at (hybridctl config get catalog.model_dirs), or get it "
            "with Ollama, LM Studio or the Hugging Face tools, whose models hybridd finds",
            capability="pull",
        )
        if not streamed:
            raise refusal from exc
        # As Ollama tells it: clients show a line's error to the person, and of a status its number.
        line = encode_line(answers.error_body(Problem.of(refusal)))
        return Reply(line, media_type=NDJSON)
    success = {"status": "success"}
    return Reply(encode_line(success), media_type=NDJSON) if streamed else Reply(success)


async def refused(call: Call) -> Answer:
    """What Ollama does with files, and hybridd leaves to those whose files they are."""
    raise Unsupported(
        "hybridd makes, copies, deletes and uploads no models; it serves those that it finds",
        capability="files",
    )


def tag(record: ModelRecord) -> dict[str, Any]:
    """A model of the list."""
    return {
        "name": record.id,
        "model": record.id,
        "modified_at": answers.timestamp(record.modified_at),
        "size": record.facts.size_bytes,
        "digest": _digest(record),
        "details": details(record),
    }


def running(loaded: Mapping[str, Any], record: ModelRecord | None) -> dict[str, Any]:
    """A model in memory.

    Args:
        loaded: The protocol's `Loaded`.
        record: None where its files are gone.
    """
    shares = {each["device"]: each["bytes"] for each in loaded.get("devices", ())}
    left = loaded.get("expires_in_s")
    return {
        "name": loaded["id"],
        "model": loaded["id"],
        "size": sum(shares.values()),
        "digest": _digest(record) if record else "",
        "details": details(record) if record else {},
        "expires_at": answers.timestamp(time.time() + (_FOREVER_S if left is None else left)),
        "size_vram": sum(size for device, size in shares.items() if device != CPU),
        "context_length": loaded.get("context_length"),
    }


def shown(record: ModelRecord) -> dict[str, Any]:
    """Everything that is known of a model."""
    facts = record.facts
    parameters = list(facts.defaults.items())
    made = {
        "modelfile": "\n".join(
            [f"FROM {record.id}", *(f"PARAMETER {name} {value}" for name, value in parameters)]
        ),
        "parameters": "\n".join(f"{name:<30} {value}" for name, value in parameters),
        "template": facts.chat_template or "",
        "details": details(record),
        "model_info": _info(record),
        "capabilities": [_CAPABILITIES[c] for c in facts.capabilities if c in _CAPABILITIES],
        "modified_at": answers.timestamp(record.modified_at),
    }
    if isinstance(license := facts.metadata.get("general.license"), str):
        made["license"] = license
    return made


def details(record: ModelRecord) -> dict[str, Any]:
    """A model in a few words."""
    facts = record.facts
    family = facts.architecture or ""
    return {
        "parent_model": "",
        "format": facts.format,
        "family": family,
        "families": [family] if family else [],
        "parameter_size": format_count(facts.parameters) if facts.parameters else "",
        "quantization_level": facts.quantization or "unknown",
    }


def _info(record: ModelRecord) -> dict[str, Any]:
    """Header facts by GGUF's names, which those of other formats get as well."""
    facts = record.facts
    family = facts.architecture or "unknown"
    known = {
        name.format(family): value
        for field, name in _INFO.items()
        if (value := getattr(facts, field)) is not None
    }
    own = {name: value for name, value in facts.metadata.items() if "." in name}
    return {"general.architecture": family, **known, **own}


def _digest(record: ModelRecord) -> str:
    """A hash of the content where a store records one, else of the files' state."""
    return (record.digest or record.content).rpartition(":")[2]
