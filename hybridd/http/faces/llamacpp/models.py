"""Which model is asked, as llama-server's clients name one or none, and what they read of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd import __version__
from hybridd.core.model import ModelRecord, printable
from hybridd.core.options import complete_sampling
from hybridd.http.faces.api import Answer, Call, Reply
from hybridd.http.faces.shared import model_names
from hybridd.http.problems import Problem
from hybridd.wire.errors import InvalidParams


async def meant(call: Call, name: str | None) -> ModelRecord:
    """The model of a request; without a name the only one that is loaded.

    Raises:
        InvalidParams: There is none, or several are.
        ModelNotFound, ModelAmbiguous: With suggestions or candidates.
    """
    if name:
        return await model_names.record(call.daemon, name)
    loaded = call.daemon.manager.loaded_models
    if len(loaded) == 1:
        return await call.daemon.manager.find(loaded[0])
    why = f"{len(loaded)} are loaded" if loaded else "none is loaded"
    raise InvalidParams(
        f"model is missing, and {why}: name the model, or load just one",
        field="model",
        reason="missing",
    )


async def health(call: Call) -> Answer:
    """The daemon is there; models are loaded when they are asked."""
    return Reply({"status": "ok"})


async def props(call: Call) -> Answer:
    """What is known of one model; `?model=`, else the only one that is loaded."""
    record = await meant(call, call.query.get("model"))
    loaded = {each["id"]: each for each in await call.daemon.manager.loaded()}
    own = call.daemon.manager.settings.get(record.id).get("options", {})
    return Reply(_props(record, loaded.get(record.id), own))


async def slots(call: Call) -> Answer:
    """The slots of the models that are loaded, or of `?model=`."""
    wanted = call.query.get("model")
    id = (await meant(call, wanted)).id if wanted else None
    loaded = await call.daemon.manager.loaded()
    told = [slot for each in loaded if id in (None, each["id"]) for slot in _slots(each)]
    if call.query.get("fail_on_no_slot") and all(slot["is_processing"] for slot in told):
        raise Problem(503, "busy", "no slot is free", headers=(("retry-after", "1"),))
    return Reply([{"id": number, **slot} for number, slot in enumerate(told)])


def _props(
    record: ModelRecord, loaded: Mapping[str, Any] | None, own: Mapping[str, Any]
) -> dict[str, Any]:
    facts = record.facts
    sampling = complete_sampling(own, facts.defaults)
    most = sampling.pop("max_tokens")
    running = loaded or {}
    return {
        "default_generation_settings": {
            "n_ctx": running.get("context_length") or facts.context_length,
            "params": {**sampling, "n_predict": -1 if most is None else most},
        },
        "total_slots": running.get("parallel") or 1,
        "model_alias": record.id,
        "model_path": printable(str(record.path)),
        "chat_template": facts.chat_template or "",
        "modalities": {sense: sense in facts.capabilities for sense in ("vision", "audio")},
        "build_info": f"hybridd {__version__}",
        "is_sleeping": loaded is None,
    }


def _slots(loaded: Mapping[str, Any]) -> list[dict[str, Any]]:
    active = loaded.get("active_requests", 0)
    return [
        {
            "model": loaded["id"],
            "n_ctx": loaded.get("context_length"),
            "speculative": bool(loaded.get("load_options", {}).get("draft_model")),
            "is_processing": number < active,
        }
        for number in range(loaded.get("parallel") or 1)
    ]
