"""From a Hugging Face directory's own files to facts.

Reads config.json, generation_config.json, the tokenizer's configuration and the safetensors
headers; never a pickle and never code. What wants code of its own (`auto_map`) is refused with
that reason, since hybridd does not run code out of model directories. Runs in the daemon and
imports nothing heavy.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridd.core.model import Facts
from hybridd.wire.errors import ModelInvalid

from .. import card
from ..bounded import (
    invalid,
    names_in,
    plain,
    read_file,
    read_json,
    sampling_default,
    template_capabilities,
    valid_text,
)
from . import adapter
from .adapter import CONFIG, is_adapter
from .card import base_of, capabilities, describe, read_processor
from .config import architectures, first, model_type, text_config
from .sentence import max_length
from .weights import INDEX, PICKLES, Weights, read_weights

FORMAT = "huggingface"
# In a model's metadata: settings without which it is not loaded.
PERMISSIONS = "permissions"
# Real ones have under 100 KiB; tokenizer_config.json lists added tokens and has up to 5 MiB.
MAX_CONFIG_BYTES = 1024 * 1024
MAX_TOKENIZER_CONFIG_BYTES = 8 * 1024 * 1024
MAX_TEMPLATE_BYTES = 1024 * 1024

# One of these makes a tokenizer that transformers can load.
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tiktoken.model",
)
# Attention code that is part of transformers; other values name code from elsewhere.
_FLASH = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
_ATTENTION = ("eager", "sdpa", "flex_attention", *_FLASH)

_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
}
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


# A download that has just begun: nothing but these small files.
_BEGUN = frozenset(
    {"config.json", "generation_config.json", "README.md", "LICENSE", ".gitattributes", ".git/"}
)


def claims(names: Set[str]) -> bool:
    """Whether a directory with files of these names is a Hugging Face model, usable or not.

    A config.json among other things says little: many tools write one, and repositories of GGUF
    files carry the one of the model that they were made from.
    """
    if "config.json" not in names:
        return CONFIG in names
    if names <= _BEGUN:
        return True
    if any(name.endswith(".safetensors") or name.startswith("pytorch_model") for name in names):
        return True
    if any(name.lower().endswith(".gguf") for name in names):
        return False
    if "genai_config.json" in names or any(name.endswith(".onnx") for name in names):
        return False
    if INDEX in names or any(name.endswith(PICKLES) for name in names):
        return True
    if "onnx/" in names:
        return False
    return not names.isdisjoint((*TOKENIZERS, "tokenizer_config.json"))


def inspect(path: Path) -> Facts:
    """Facts of the Hugging Face model in the directory `path`.

    Where the configuration can be read but the files are no usable model, the facts come with
    that `reason`.

    Raises:
        ModelInvalid: The configuration cannot be read.
        OSError: A file went away or cannot be read.
    """
    names, _ = names_in(path)
    if is_adapter(names):
        return adapter.inspect(path, names, FORMAT)
    config = read_json(path / "config.json", MAX_CONFIG_BYTES)
    rules = capabilities(config, names, processor := read_processor(path, names))
    facts = _config_facts(path, config, rules)
    if "embedding" in rules:
        facts = replace(facts, context_length=_shorter(facts.context_length, max_length(path)))
    try:
        weights = read_weights(path, config)
    except ModelInvalid as error:
        return replace(facts, reason=str(error.data.get("reason")))
    facts = _with_weights(facts, weights)
    try:
        tokenizer = _tokenizer_config(path, names)
        templates = _templates(path, names, tokenizer)
        defaults = _defaults(path, names)
        reason = _reason(config, names, facts)
        unsafe = _unsafe(config, tokenizer, weights)
    except ModelInvalid as error:
        return replace(facts, reason=str(error.data.get("reason")))
    template = templates.get("default") or next(iter(templates.values()), None)
    if template is not None and "completion" in rules:
        rules["chat"] = "it has a chat template"
        for made in template_capabilities(template):
            rules[made] = f"its chat template handles {made}"
    base, said = base_of(path, "quantization_config" in config)
    shown = {
        **describe(config, facts.parameters, tokenizer),
        **said,
        **card.filled(rules=rules, chat_templates=list(templates), processor=processor),
    }
    if reason is None and unsafe:
        reason = next(iter(unsafe.values()))
        facts = replace(facts, metadata={**facts.metadata, PERMISSIONS: list(unsafe)})
    return replace(
        facts,
        base=base,
        chat_template=template,
        defaults=defaults,
        capabilities=tuple(rules),
        metadata={**facts.metadata, card.CARD: shown},
        reason=reason,
    )


def is_permitted(facts: Facts, permissions: Collection[str]) -> bool:
    """Whether the only reason against a model is one that its settings do away with."""
    needed = facts.metadata.get(PERMISSIONS) or ()
    return bool(needed) and set(needed) <= set(permissions)


def _config_facts(path: Path, config: Mapping[str, Any], rules: Mapping[str, str]) -> Facts:
    text = text_config(config)
    heads = first(text, "num_attention_heads", "n_head", "num_heads", "decoder_attention_heads")
    embedding = first(text, "hidden_size", "n_embd", "d_model")
    head = first(text, "head_dim") or (embedding // heads if embedding and heads else None)
    latent = first(text, "kv_lora_rank")
    kv_heads = first(text, "num_key_value_heads", "num_kv_heads") or heads
    if text.get("multi_query") is True:
        kv_heads = 1
    feed_forward = first(text, "intermediate_size", "n_inner", "ffn_dim", "d_ff", "decoder_ffn_dim")
    return Facts(
        format=FORMAT,
        files=(path / "config.json",),
        name=None,
        architecture=model_type(config),
        context_length=first(text, *_CONTEXT_KEYS),
        capabilities=tuple(rules),
        layers=first(text, "num_hidden_layers", "n_layer", "num_layers", "decoder_layers"),
        heads=heads,
        kv_heads=None if kv_heads is None else (kv_heads,),
        # Latent attention is kept uncompressed by transformers: query and value sizes per head.
        head_dim_k=(_mla_key(text) or head) if latent else head,
        head_dim_v=(first(text, "v_head_dim") or head) if latent else head,
        vocab_size=first(text, "vocab_size"),
        embedding_length=embedding,
        feed_forward_length=feed_forward or (4 * embedding if embedding else None),
        metadata={
            "config": plain(dict(config)),
            card.CARD: {**describe(config, None, {}), **card.filled(rules=dict(rules))},
        },
    )


def _shorter(one: int | None, other: int | None) -> int | None:
    return min((length for length in (one, other) if length), default=None)


def _with_weights(facts: Facts, weights: Weights) -> Facts:
    stored = weights.data_bytes
    bits = round(stored * 8 / weights.parameters, 3) if weights.parameters else None
    return replace(
        facts,
        files=(*facts.files, *weights.files),
        size_bytes=weights.size_bytes,
        parameters=weights.parameters or None,
        quantization=weights.quantization,
        bits_per_weight=bits,
        weights_bytes=stored,
        metadata={
            **facts.metadata,
            "safetensors": {
                "bytes_by_dtype": weights.bytes_by_dtype,
                "embedding_bytes": weights.embedding_bytes,
            },
        },
    )


def _unsafe(
    config: Mapping[str, Any], tokenizer: Mapping[str, Any], weights: Weights
) -> dict[str, str]:
    """Settings of the model without which it is not loaded -> why."""
    found = {}
    if weights.pickled:
        name = weights.files[0].name
        found["allow_pickle"] = (
            f"the weights are pickles ({name}), which are unsafe: loading one can run any code, so "
            "they are not loaded; convert them (model.save_pretrained(directory) of transformers "
            "writes safetensors), or allow it for this model: models.configure with allow_pickle"
        )
    for what, source in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        for key, value in _walk(source):
            if key in ("auto_map", "trust_remote_code") and value:
                found["trust_remote_code"] = (
                    f"{what} wants code of its own to be run ({key}), which hybridd does not do by "
                    "itself; use a version of the model that transformers knows, or allow it for "
                    "this model: models.configure with trust_remote_code"
                )
            elif _private_attention(key, value):
                found["trust_remote_code"] = (
                    f"{what} names attention code from elsewhere ({key}), which is not run unless "
                    "the model is allowed to: models.configure with trust_remote_code"
                )
    return found


def _reads_text(config: Mapping[str, Any]) -> bool:
    """Whether an encoder's input is text: speech models have mel bins, others a part for vision."""
    encoder = config.get("encoder", {"vocab_size": None})
    return (
        not any(key in config for key in ("num_mel_bins", "input_feat_per_channel"))
        and isinstance(encoder, Mapping)
        and "vocab_size" in encoder
        and "conv_dim" not in encoder  # what turns sound into letters has those too
    )


def _private_attention(key: str, value: Any) -> bool:
    if "attn_implementation" not in key:
        return False
    # A model of several parts may say it of each. There are flags of such names too.
    named = value.values() if isinstance(value, Mapping) else [value]
    return any(isinstance(one, str) and one not in _ATTENTION for one in named)


def _reason(config: Mapping[str, Any], names: set[str], facts: Facts) -> str | None:
    if not facts.capabilities:
        made = ", ".join(architectures(config)) or "no architecture"
        return f"no language model: config.json names {made[:200]}"
    if config.get("is_encoder_decoder") is True and not _reads_text(config):
        return f"an encoder-decoder model ({facts.architecture}) that reads no text"
    if not names.intersection(TOKENIZERS):
        return "no tokenizer: the directory has none of " + ", ".join(TOKENIZERS[:4])
    return None


def _walk(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every key with its value in nested objects; deeper than real configurations is refused."""
    if depth > 32:
        raise invalid("a configuration is nested too deeply")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list):
                yield from _walk(inner, depth + 1)


def _mla_key(config: Mapping[str, Any]) -> int | None:
    turned, rest = first(config, "qk_rope_head_dim"), first(config, "qk_nope_head_dim")
    return turned + rest if turned and rest else None


def _tokenizer_config(path: Path, names: set[str]) -> Mapping[str, Any]:
    if "tokenizer_config.json" not in names:
        return {}
    return read_json(path / "tokenizer_config.json", MAX_TOKENIZER_CONFIG_BYTES)


def _templates(path: Path, names: set[str], tokenizer: Mapping[str, Any]) -> dict[str, str]:
    """Name -> Jinja source, of all chat templates; one without a name is `default`."""
    found: Any = None
    if "chat_template.jinja" in names:
        raw = read_file(path / "chat_template.jinja", MAX_TEMPLATE_BYTES)
        found = raw.decode("utf-8", "replace")
    elif "chat_template.json" in names:
        found = read_json(path / "chat_template.json", MAX_TEMPLATE_BYTES).get("chat_template")
    else:
        found = tokenizer.get("chat_template")
    named: dict[str, Any] = {"default": found}
    if isinstance(found, list):  # [{"name": "default", "template": …}, …]
        named = {t["name"][:64]: t.get("template") for t in found[:16] if _is_named(t)}
    # Thousands of models share a few dozen templates.
    return {
        valid_text(name): sys.intern(valid_text(source))
        for name, source in named.items()
        if isinstance(source, str) and source.strip() and len(source) <= MAX_TEMPLATE_BYTES
    }


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _defaults(path: Path, names: set[str]) -> dict[str, Any]:
    if "generation_config.json" not in names:
        return {}
    said = read_json(path / "generation_config.json", MAX_CONFIG_BYTES)
    if said.get("do_sample") is False:
        # transformers then takes the likeliest token and ignores the others.
        return {"temperature": 0.0}
    found = {
        option: sampling_default(option, said[key])
        for key, option in _SAMPLING.items()
        if key in said
    }
    return {option: value for option, value in found.items() if value is not None}
