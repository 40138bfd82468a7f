"""transformers' classes for models that do other things than go on with a text.

Imported in workers only, after `library`, which imports transformers as a template wants it.
"""

from __future__ import annotations

import importlib
from typing import Any

from safetensors import torch as safetensors_torch

__all__ = [
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "EncoderDecoderCache",
    "concrete",
    "generator",
    "reads_backwards_only",
    "safetensors_torch",
    "text_encoder",
]

_factory: Any = importlib.import_module("transformers.models.auto.auto_factory")
_auto: Any = importlib.import_module("transformers.models.auto.modeling_auto")
AutoModelForCausalLM: Any = _auto.AutoModelForCausalLM
EncoderDecoderCache: Any = importlib.import_module("transformers.cache_utils").EncoderDecoderCache
AutoModelForSequenceClassification: Any = _auto.AutoModelForSequenceClassification


def generator(config: Any) -> Any:
    """The class that goes on with a text, or answers one, with pictures or without."""
    if getattr(config, "is_encoder_decoder", False):
        return _auto.AutoModelForSeq2SeqLM
    if type(config) in _auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return _auto.AutoModelForImageTextToText
    return AutoModelForCausalLM


def text_encoder(config: Any) -> Any:
    """The class that turns a text into hidden states; of an encoder-decoder its encoder alone."""
    if type(config) in _auto.MODEL_FOR_TEXT_ENCODING_MAPPING:
        return _auto.AutoModelForTextEncoding
    return _auto.AutoModel


def concrete(auto_class: Any, config: Any) -> Any:
    """The class that an automatic one would take."""
    return _factory._get_model_class(config, auto_class._model_mapping)


def reads_backwards_only(config: Any) -> bool:
    """Whether each token of such a model sees only those before it."""
    kind = type(config)
    masked = kind in _auto.MODEL_FOR_MASKED_LM_MAPPING
    return kind in _auto.MODEL_FOR_CAUSAL_LM_MAPPING and not masked
