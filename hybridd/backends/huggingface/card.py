"""What a Hugging Face directory says beyond the facts that everything counts with.

Which rule gives a model each capability, and the entries of the card (`backends/card`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from hybridd.wire.errors import ModelInvalid

from .. import card
from ..bounded import number, read_json, whole
from .config import architectures, first, part, text, text_config
from .readme import read_card

# Real ones have a few KiB.
MAX_PROCESSOR_BYTES = 1024 * 1024

_GENERATIVE = (
    *("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForImageTextToText"),
    *("ModelWithLMHead", "MarianMTModel", "BertGenerationDecoder"),
)
_ENCODER = ("Model", "ForMaskedLM")
_SENTENCES = ("modules.json", "config_sentence_transformers.json")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
# Values of `base_model_relation` with which a model is another one than its base.
_DERIVED = frozenset({"finetune", "merge", "adapter"})


def read_processor(path: Path, names: Set[str]) -> dict[str, str]:
    """What prepares pictures and sound for the model: `class`, `vision`, `audio`."""
    said: dict[str, Any] = {}
    for name in _PROCESSORS:
        if name in names:
            with contextlib.suppress(ModelInvalid):
                said |= read_json(path / name, MAX_PROCESSOR_BYTES)
    inner = {**part(said, "image_processor"), **part(said, "feature_extractor"), **said}
    return card.filled(
        **{"class": text(said, "processor_class")},
        vision=text(inner, "image_processor_type"),
        audio=text(inner, "feature_extractor_type") if _hears(inner) else None,
    )


def _hears(said: Mapping[str, Any]) -> bool:
    """Old image processors call themselves feature extractors too; only sound has a rate."""
    return "sampling_rate" in said or "feature_size" in said


def capabilities(
    config: Mapping[str, Any], names: Set[str], processor: Mapping[str, str]
) -> dict[str, str]:
    """What the model can do -> the rule that says so; chat comes with the template."""
    classes = architectures(config)
    sentences = next((name for name in _SENTENCES if name in names), None)
    classifier = next((n for n in classes if n.endswith("ForSequenceClassification")), None)
    if sentences is not None and classifier is None:
        return {"embedding": f"{sentences} makes it a sentence-transformers model"}
    generative = next((name for name in classes if _generates(name)), None)
    if generative is not None:
        found = {"completion": f"the class {generative} generates text"}
        for sense in card.SENSES:
            if isinstance(config.get(f"{sense}_config"), dict):
                found[sense] = f"config.json has a {sense}_config"
            elif sense in processor:
                found[sense] = f"its processor is a {processor[sense]}"
        return found
    if classifier is not None:
        return _classifier(config, classifier)
    encoder = next((name for name in classes if name.endswith(_ENCODER)), None)
    if encoder is None or "vocab_size" not in text_config(config) or "vision_config" in config:
        return {}
    return {"embedding": f"the class {encoder} is an encoder"}


def _generates(name: str) -> bool:
    """By what transformers calls its classes; of pairs of models there are others that see."""
    return name.endswith(_GENERATIVE) or name == "EncoderDecoderModel"


def _classifier(config: Mapping[str, Any], name: str) -> dict[str, str]:
    """A cross-encoder scores a pair of texts with one number."""
    labels = config.get("id2label")
    if config.get("num_labels") == 1 or (isinstance(labels, dict) and len(labels) == 1):
        return {"reranking": f"the class {name} has one label: a cross-encoder"}
    if isinstance(config.get("sentence_transformers"), dict):
        return {"reranking": "config.json makes it a sentence-transformers cross-encoder"}
    return {}


def base_of(path: Path, quantized: bool) -> tuple[str | None, dict[str, Any]]:
    """The base that the model is a build of, and what README.md adds to the card."""
    said = read_card(path)
    bases = said.get("base_model", [])
    relation = next(iter(said.get("base_model_relation", [])), None)
    build = relation == "quantized" or (quantized and relation not in _DERIVED)
    return bases[0] if len(bases) == 1 and build else None, card.filled(
        license=next(iter(said.get("license_name") or said.get("license", [])), None),
        languages=said.get("language", []),
        base_models=bases,
    )


def describe(
    config: Mapping[str, Any], parameters: int | None, tokenizer: Mapping[str, Any]
) -> dict[str, Any]:
    """The entries that the configuration gives."""
    inner = text_config(config)
    rope = {**part(inner, "rope_scaling"), **part(inner, "rope_parameters")}
    quantized = part(config, "quantization_config", "compression_config")
    window = inner.get("use_sliding_window") is not False
    return card.filled(
        kind=card.MODEL,
        size_label=card.size_label(parameters or 0),
        dtype=text(inner, "dtype", "torch_dtype", limit=32),
        quantization=card.filled(
            method=text(quantized, "quant_method", limit=64),
            bits=whole(quantized.get("bits"), 1, 32),
            type=text(quantized, "bnb_4bit_quant_type", "format", "fmt", limit=64)
            or text(part(part(quantized, "quant_type"), "default"), "_type", limit=64),
            group_size=whole(quantized.get("group_size"), 1),
        ),
        rope=card.filled(
            theta=number(rope.get("rope_theta", inner.get("rope_theta")), 0, 1e12),
            scaling=text(rope, "rope_type", "type", limit=64),
            factor=number(rope.get("factor"), 0, 1e9),
            original_context_length=first(rope, "original_max_position_embeddings"),
        ),
        sliding_window=first(inner, "sliding_window") if window else None,
        experts=card.filled(
            count=first(inner, "num_local_experts", "num_experts", "n_routed_experts"),
            used=first(inner, "num_experts_per_tok", "num_experts_per_token"),
            shared=first(inner, "n_shared_experts", "num_shared_experts"),
        ),
        tokenizer=card.filled(
            model=text(tokenizer, "tokenizer_class"), tokens=first(inner, "vocab_size")
        ),
    )
