"""Which models are builds of one: by the names that quantizers and converters give them.

Pure text. A build is the same model in another format or precision; its name says so at its end
(`-GGUF`, `-AWQ`, `.Q4_K_M`), and those words are what is left out here.
"""

from __future__ import annotations

import functools
import re

# Words at the end of a name that say how a model is stored, not which it is.
_BUILD = re.compile(
    r"[-_.](?:"
    r"gguf|ggml|gptq|awq|exl2|hf|safetensors|onnx|mlx|bnb|quantized|imatrix|i1|qat|"
    r"nf4|fp4|fp8|fp16|bf16|f16|f32|fp32|int4|int8|[48]-?bits?|w\d+a\d+(?:-?\w{1,3})?|"
    r"(?:ud-)?i?q\d+(?:[-_](?:\d|[ksmlx]{1,3}|nl))*|mxfp4|fp8-dynamic"
    r")$"
)
_SPACES = re.compile(r"[\s_]+")


def bare(model_id: str) -> str:
    """An id without its tag: `publisher/repo` of `publisher/repo:Q4_K_M`."""
    return model_id.partition(":")[0]


def family(model_id: str) -> str:
    """What builds of one model share by their ids: the name without publisher, format and tag."""
    return normal(bare(model_id).rpartition("/")[2].partition("@")[0])


def store_name(given: str, header: str | None) -> str:
    """The name of a model that a store calls `name:tag`, where the tag says which of several.

    Args:
        given: As the store calls it (`llama3.1:8b-instruct-q4_K_M`).
        header: What the files call themselves, for the tag `latest`, which says nothing.
    """
    name, _, tag = given.rpartition("/")[2].partition(":")
    if tag in ("", "latest"):
        return header or name
    return f"{name}-{tag}"


@functools.lru_cache(maxsize=4096)
def normal(name: str) -> str:
    """A model's name in small letters, without the words that say how it is stored."""
    short = _SPACES.sub("-", name.strip().casefold())
    while (shorter := _BUILD.sub("", short)) != short and shorter:
        short = shorter
    return short


def base_name(own: str, stated: str | None) -> str:
    """The name that builds of one model share.

    What the files state as the model that they were made from is it, unless their own name is
    the same up to words at its end: an instruction-tuned model states the bare one that it was
    trained from, and is no build of that.

    Args:
        own: The model's id or name.
        stated: `publisher/name` or `name` of the base model, as the files say.
    """
    name = family(own)
    if stated is None or not stated.strip():
        return name
    base = family(stated)
    words, others = name.split("-"), base.split("-")
    count = min(len(words), len(others))
    return name if words[:count] == others[:count] else base or name
