"""transformers' classes by what a configuration says, and what is read with them.

Everything is documented but the mappings from configurations to classes, which tell kinds of models
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .imports import torch, transformers
from .leaning import Leaning

AutoConfig: Any = transformers.AutoConfig
AutoModelForCausalLM: Any = transformers.AutoModelForCausalLM
AutoModelForSequenceClassification: Any = transformers.AutoModelForSequenceClassification

MAPPINGS = Leaning(
    name="transformers.MODEL_FOR_…_MAPPING",
    purpose="tell models that read pictures, and encoders, by their configuration",
    seen="transformers 5.18.0 to 5.24.0",
    without="what the model is made for is told by the names of its classes alone: this "
    "transformers has no lists of them",
)
# What the name of a class ends with that is in the mapping.
_ENDS = {"IMAGE_TEXT_TO_TEXT": "ForConditionalGeneration", "TEXT_ENCODING": "EncoderModel"}


def generator(config: Any) -> Any:
    """The class that goes on with a text, or answers one, with pictures or without."""
    if getattr(config, "is_encoder_decoder", False):
        return transformers.AutoModelForSeq2SeqLM
    if _is_mapped(config, "IMAGE_TEXT_TO_TEXT"):
        return transformers.AutoModelForImageTextToText
    return AutoModelForCausalLM


def text_encoder(config: Any) -> Any:
    """The class that turns a text into hidden states; of an encoder-decoder its encoder alone."""
    if _is_mapped(config, "TEXT_ENCODING"):
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel


def missed() -> list[str]:
    """The note where models are told apart by names; see `MAPPINGS`."""
    return [] if all(_mapping(kind) is not None for kind in _ENDS) else [MAPPINGS.without]


def concrete(auto_class: Any, config: Any, trust_remote_code: bool) -> Any:
    """The class that an automatic one would take: made without weights and memory, to be asked."""
    with torch.device("meta"):
        return type(auto_class.from_config(config, trust_remote_code=trust_remote_code))


def load_tokenizer(path: Path, trust_remote_code: bool) -> Any:
    """transformers' tokenizer of the model in a directory; raises what it likes."""
    return transformers.AutoTokenizer.from_pretrained(
        str(path), local_files_only=True, trust_remote_code=trust_remote_code
    )


def attention_names(config: Any) -> Sequence[str]:
    """transformers' names of the attentions to load a model with, the fastest first."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "attn_logit_softcapping", None) is not None:
        # Until 5.21 transformers takes "sdpa" for such a model and leaves the soft cap out.
        return ("eager",)
    return ("sdpa", "eager")


def _mapping(kind: str) -> Any:
    return getattr(transformers, f"MODEL_FOR_{kind}_MAPPING", None)


def _is_mapped(config: Any, kind: str) -> bool:
    mapping = _mapping(kind)
    if mapping is not None:
        return type(config) in mapping
    names = getattr(config, "architectures", None) or []
    return any(str(name).endswith(_ENDS[kind]) for name in names)
