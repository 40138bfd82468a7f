"""What a GGUF header says beyond the facts that everything counts with: for people, and for rules.

Keys are llama.cpp's; see `gguf-py/gguf/constants.py` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import card
from ..bounded import number, plain, template_capabilities, valid_text, whole
from .reader import Header
from .types import ENCODERS, NO_GENERATORS, POOLING_NAMES

_FILL_IN_THE_MIDDLE = (
    ("fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id"),
    ("prefix_token_id", "suffix_token_id", "middle_token_id"),  # before the names changed
)
_TEMPLATE = "tokenizer.chat_template"
_MAX_BASES = 16


def kind(header: Header) -> str:
    """What a file is: a model, or one of the others that use the same container."""
    meta = header.metadata
    said, architecture = meta.get("general.type"), meta.get("general.architecture")
    if architecture == "clip" or said == "mmproj":
        return card.PROJECTOR
    if said == "adapter" or any(name.endswith(".lora_a") for name in header.names):
        return card.ADAPTER
    if said == "imatrix":
        return "imatrix"
    if architecture == "controlvector":
        return "control vector"
    if said == "vocab" or not (header.tensors or whole(meta.get("split.count"), 2)):
        return "vocabulary"
    return card.MODEL


def capabilities(header: Header, template: str | None) -> dict[str, str]:
    """What the model can do -> the rule that says so."""
    meta = header.metadata
    architecture = str(meta.get("general.architecture") or "")
    pooling = POOLING_NAMES.get(whole(meta.get(f"{architecture}.pooling_type")) or 0, "none")
    if pooling == "rank":
        return {"reranking": "its pooling type is rank"}
    if pooling != "none":
        return {"embedding": f"its pooling type is {pooling}"}
    if architecture in ENCODERS:
        return {"embedding": f"the architecture {architecture} is an encoder"}
    if architecture in NO_GENERATORS:
        return {}
    reasons = {"completion": "its architecture generates text"}
    if template is not None:
        reasons["chat"] = f"the header has {_TEMPLATE}"
        for name in template_capabilities(template):
            reasons[name] = f"its chat template handles {name}"
    if any(all(f"tokenizer.ggml.{key}" in meta for key in keys) for keys in _FILL_IN_THE_MIDDLE):
        reasons["infill"] = "its vocabulary has tokens for filling in the middle"
    return reasons


def base_models(meta: Mapping[str, Any]) -> list[str]:
    """What the model was made from: `publisher/name`, or `name`."""
    bases = []
    for at in range(min(whole(meta.get("general.base_model.count")) or 1, _MAX_BASES)):
        prefix = f"general.base_model.{at}."
        parts = [part for part in str(meta.get(prefix + "repo_url") or "").split("/") if part]
        name, by = (card.words(meta.get(prefix + key)) for key in ("name", "organization"))
        if len(parts) >= 4 and parts[0].endswith(":"):  # scheme, host, publisher, name
            bases += card.words("/".join(parts[2:4]))
        elif name:
            bases.append("/".join([*by, *name]))
    return bases


def describe(
    header: Header, what: str, parameters: int, rules: Mapping[str, str]
) -> dict[str, Any]:
    """The card of a file of this `kind`, or of the first of its shards."""
    meta = header.metadata
    facts = card.filled(
        kind=what,
        size_label=next(iter(card.words(meta.get("general.size_label"))), None)
        or card.size_label(parameters),
        license=next(iter(card.words(meta.get("general.license"))), None),
        languages=card.words(meta.get("general.languages")),
        base_models=base_models(meta),
        tokenizer=_tokenizer(header),
        chat_templates=_templates(meta),
    )
    if what == card.PROJECTOR:
        facts["senses"] = _senses(meta)
    elif what == card.ADAPTER:
        facts["adapter"] = _adapter(header)
    else:
        facts |= card.filled(rules=dict(rules), **_graph(meta))
    return facts


def _graph(meta: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{meta.get('general.architecture')}."

    def value(key: str) -> Any:
        return meta.get(prefix + key)

    scaling = value("rope.scaling.type")
    return {
        "sliding_window": whole(value("attention.sliding_window"), 1),
        "rope": card.filled(
            freq_base=number(value("rope.freq_base"), 0, 1e12),
            scaling=valid_text(scaling[:64]) if isinstance(scaling, str) else None,
            factor=number(value("rope.scaling.factor"), 0, 1e9),
            original_context_length=whole(value("rope.scaling.original_context_length"), 1),
        ),
        "experts": card.filled(
            count=whole(value("expert_count"), 1),
            used=whole(value("expert_used_count"), 1),
            shared=whole(value("expert_shared_count"), 1),
        ),
    }


def _tokenizer(header: Header) -> dict[str, Any]:
    meta = header.metadata
    return card.filled(
        model=next(iter(card.words(meta.get("tokenizer.ggml.model"))), None),
        pre=next(iter(card.words(meta.get("tokenizer.ggml.pre"))), None),
        tokens=header.counts.get("tokenizer.ggml.tokens"),
    )


def _templates(meta: Mapping[str, Any]) -> list[str]:
    """The names of all templates; the one without a name is `default`."""
    named = [key.removeprefix(f"{_TEMPLATE}.") for key in meta if key.startswith(f"{_TEMPLATE}.")]
    return (["default"] if meta.get(_TEMPLATE) else []) + card.words(sorted(named))


def _senses(meta: Mapping[str, Any]) -> list[str]:
    senses = [sense for sense in card.SENSES if meta.get(f"clip.has_{sense}_encoder") is True]
    # Old ones do not say; they were all for pictures.
    return senses or ["vision"]


def _adapter(header: Header) -> dict[str, Any]:
    meta = header.metadata
    ranks = [
        shape[-1] for name, shape in header.names.items() if name.endswith(".lora_a") and shape
    ]
    return card.filled(
        type=plain(meta.get("adapter.type")) or "lora",
        alpha=number(meta.get("adapter.lora.alpha"), 0, 1e9),
        rank=max(ranks, default=None),
    )
