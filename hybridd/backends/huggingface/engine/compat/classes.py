"""transformers' classes for models that do other things than go on with a text.

Imported in workers only.
"""

from __future__ import annotations

from typing import Any

from safetensors import torch as safetensors_torch

from .library import auto_factory, auto_models, cache_utils

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

AutoModelForCausalLM: Any = auto_models.AutoModelForCausalLM
EncoderDecoderCache: Any = cache_utils.EncoderDecoderCache
AutoModelForSequenceClassification: Any = auto_models.AutoModelForSequenceClassification


def generator(config: Any) -> Any:
    """The class that goes on with a text, or answers one, with pictures or without."""
    if getattr(config, "is_encoder_decoder", False):
        return auto_models.AutoModelForSeq2SeqLM
    if type(config) in auto_models.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return auto_models.AutoModelForImageTextToText
    return AutoModelForCausalLM


def text_encoder(config: Any) -> Any:
    """The class that turns a text into hidden states; of an encoder-decoder its encoder alone."""
    if type(config) in auto_models.MODEL_FOR_TEXT_ENCODING_MAPPING:
        return auto_models.AutoModelForTextEncoding
    return auto_models.AutoModel


def concrete(auto_class: Any, config: Any) -> Any:
    """The class that an automatic one would take."""
    return auto_factory._get_model_class(config, auto_class._model_mapping)


def reads_backwards_only(config: Any) -> bool:
    """Whether each token of such a model sees only those before it."""
    kind = type(config)
    masked = kind in auto_models.MODEL_FOR_MASKED_LM_MAPPING
    return kind in auto_models.MODEL_FOR_CAUSAL_LM_MAPPING and not masked
