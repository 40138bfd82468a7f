"""The protocol's option tables: sampling `options`, `load_options`, and the shapes of messages.

One table serves the check of requests, `rpc.discover`, docs/protocol.md, and the layering of
defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hybridd.core.fields import Bool, Choice, Field, Float, Int, ListOf, MapOf, OneOf, Struct, Text
from hybridd.wire.errors import InvalidParams

NULL = Choice((None,))


class Option(NamedTuple):
    """One option: what it takes, what it means, and its value where none is given."""

    field: Field
    meaning: str
    default: Any = None


def _struct(
    options: Mapping[str, Option], what: str, required: Sequence[str] = (), open: bool = False
) -> Struct:
    notes = {
        name: {"description": option.meaning}
        | ({} if option.default is None else {"default": option.default})
        for name, option in options.items()
    }
    fields = {name: option.field for name, option in options.items()}
    return Struct(fields, required=required, open=open, what=what, notes=notes)


_ADAPTER_SCALE = _struct(
    {
        "name": Option(Text(1, 256), "As `load_options.adapters` named it."),
        "scale": Option(Float(-100, 100), "How much it counts; 0 is as without.", 1.0),
    },
    required=("name",),
    what="an adapter's name and scale",
)

# The defaults are the end of the precedence: request, models.configure, the model's own, these.
SAMPLING: Mapping[str, Option] = {
    "max_tokens": Option(
        OneOf((Int(0, 2**31 - 1), NULL)),
        "The most tokens to generate; null is what the context has left. More than that is allowed "
        "and ends with `length`; 0 only computes the prompt.",
    ),
    "temperature": Option(
        Float(0, 100), "Divides the logits before the draw; 0 takes the likeliest token.", 0.8
    ),
    "top_p": Option(
        Float(0, 1), "Draws from the likeliest tokens that together have this probability.", 0.95
    ),
    "top_k": Option(Int(0, 2**31 - 1), "Draws from so many of the likeliest tokens; 0: all.", 40),
    "min_p": Option(
        Float(0, 1), "Draws from tokens with at least this share of the likeliest one's.", 0.05
    ),
    "typical_p": Option(Float(0, 1), "Locally typical sampling; 1 is off.", 1.0),
    "repeat_penalty": Option(
        Float(0.01, 100), "Divides positive logits of recent tokens; 1 is off.", 1.0
    ),
    "frequency_penalty": Option(
        Float(-100, 100), "Subtracted for each time that a token came lately; 0 is off.", 0.0
    ),
    "presence_penalty": Option(
        Float(-100, 100), "Subtracted once for a token that came lately; 0 is off.", 0.0
    ),
    "seed": Option(
        OneOf((Int(-1, 2**64 - 1), NULL)), "Of the draws; null and -1 take a random one."
    ),
    # Four stop strings are OpenAI's limit; agents use more. 64 keeps the hold-back scan cheap.
    "stop": Option(
        OneOf((ListOf(Text(1, 1024), max_length=64), Text(1, 1024), NULL)),
        "Texts that end the generation; they are not part of it.",
        [],
    ),
    "logit_bias": Option(
        MapOf(Float(-1000, 1000), whole=True), "Token ids, each with what its logit gains.", {}
    ),
    "logprobs": Option(
        Int(0, 20), "So many alternatives are told with each token; 0 tells nothing.", 0
    ),
    "ignore_eos": Option(Bool(), "Goes on past the model's own end.", False),
    "context_shift": Option(
        Bool(),
        "Where the context is full, forgets a part of it and goes on (GGUF models with plain "
        "attention).",
        False,
    ),
    "adapters": Option(
        ListOf(_ADAPTER_SCALE, max_length=16, distinct="name"),
        "Which of the loaded adapters count for this request.",
        [],
    ),
}
SAMPLING_DEFAULTS: Mapping[str, Any] = {name: option.default for name, option in SAMPLING.items()}

AUTO = Choice(("auto",))
_ROPE_SCALING = _struct(
    {
        "type": Option(Choice(("none", "linear", "yarn")), "How positions are scaled."),
        "factor": Option(Float(0.01, 1000), "By how much."),
        "freq_base": Option(Float(1, 1e12), "The base of RoPE's frequencies."),
        "original_context_length": Option(Int(1, 2**31 - 1), "Of the training, in tokens."),
    },
    what="how positions beyond those of the training are stretched",
)
_ADAPTER_FILE = _struct(
    {
        "name": Option(Text(1, 256), "What requests call it."),
        "path_or_id": Option(Text(1, 4096), "Its id, or its path where the catalog lists it."),
    },
    required=("name", "path_or_id"),
    what="an adapter's name and path_or_id",
)

LOAD: Mapping[str, Option] = {
    "context_length": Option(
        OneOf((Int(1, 2**31 - 1), AUTO)),
        "Tokens that one request may have, prompt and completion together. auto: what the model "
        "was made for, up to `models.auto_context`, as far as there is room.",
    ),
    "parallel": Option(
        OneOf((Int(1, 256), AUTO)),
        "Requests that are computed at a time. auto: the engine's usual number, fewer where memory "
        "is short.",
    ),
    "kv_cells": Option(
        Int(1, 2**31 - 1),
        "Tokens that all requests together have room for in the KV cache; context_length times "
        "parallel where it is not said.",
    ),
    "gpu_layers": Option(
        OneOf((AUTO, Int(0, 100_000), Float(0, 1))),
        "Layers on the GPU: a number, a fraction written with a point (1.0 is all), or auto. GGUF.",
    ),
    "device": Option(Text(1, 64), "The one device to take: `cpu` or `cuda:N`."),
    "dtype": Option(
        Choice(("auto", "float32", "float16", "bfloat16")),
        "What is computed in. Hugging Face.",
    ),
    "quantization": Option(
        Text(1, 64),
        "Hugging Face: none, int8 or int4, made while loading. GGUF: picks the build, as `:TAG` "
        "behind the name does.",
    ),
    "kv_cache_type": Option(
        Choice(("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")),
        "What the KV cache is stored as. GGUF; f16 where it is not said.",
    ),
    "batch_size": Option(Int(1, 65536), "Tokens that are handed to the engine at a time."),
    "ubatch_size": Option(Int(1, 65536), "Tokens of one forward pass."),
    "threads": Option(
        Int(1, 1024), "Threads to compute with; else models at work share the physical cores."
    ),
    "flash_attention": Option(OneOf((Bool(), AUTO)), "GGUF."),
    "mmap": Option(Bool(), "Whether the weights are mapped from their file; true unless said."),
    "mlock": Option(Bool(), "Whether they are kept from being swapped out. GGUF."),
    "tensor_split": Option(
        ListOf(Float(0, 1_000_000), min_length=1, max_length=16),
        "Shares of several GPUs, in their order. GGUF.",
    ),
    "rope_scaling": Option(
        _ROPE_SCALING,
        "Stretches positions past those of the training; the rest is the file's. GGUF.",
    ),
    "adapters": Option(
        ListOf(_ADAPTER_FILE, max_length=16), "LoRA adapters that are loaded with the model."
    ),
    "draft_model": Option(
        OneOf((Text(1, 4096), NULL)),
        "A small model of the same family that proposes tokens, named as `model` is; null is none. "
        "GGUF.",
    ),
}

SAMPLING_FIELD = _struct(SAMPLING, "an object of sampling options")
LOAD_FIELD = _struct(LOAD, "an object of load options")

_PART = _struct(
    {
        "type": Option(Text(1, 64), "`text` or `image_url`."),
        "text": Option(Text(), "Of a part of type `text`."),
    },
    required=("type",),
    open=True,
    what="a content part",
)
_MESSAGE = _struct(
    {
        "role": Option(
            Choice(("system", "user", "assistant", "tool", "developer")), "Who says it."
        ),
        "content": Option(
            OneOf((Text(), ListOf(_PART, max_length=1024), NULL)),
            "A text, or parts as `{type: image_url, image_url: {url: data:image/png;base64,…}}`.",
        ),
        "name": Option(Text(0, 256), "Of the speaker, for templates that know names."),
    },
    required=("role",),
    open=True,
    what="a message with role and content",
)
MESSAGES = ListOf(_MESSAGE, min_length=1, max_length=10_000)
TOOLS = ListOf(Struct({}, open=True, what="a tool"), max_length=512)


def complete_sampling(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in every option from the first layer that has it, then from the defaults.

    `stop` given as one text becomes a list; a seed of -1 is a random one, as llama.cpp's users
    write it.
    """
    options = dict(SAMPLING_DEFAULTS)
    for layer in reversed(layers):
        options.update({k: v for k, v in layer.items() if k in SAMPLING_DEFAULTS})
    if isinstance(options["stop"], str):
        options["stop"] = [options["stop"]]
    options["stop"] = list(options["stop"] or [])
    if options["seed"] == -1:
        options["seed"] = None
    return options


def wanted_of(load_options: Mapping[str, Any], most_parallel: int) -> dict[str, Any]:
    """Load options as the scheduler compares and plans them.

    More requests at a time than the engine serves become as many as it does: an instance that
    serves those is all that a load could bring.

    Raises:
        InvalidParams: Options that contradict each other.
    """
    wanted = dict(load_options)
    length, cells = wanted.get("context_length"), wanted.get("kv_cells")
    if isinstance(length, int) and isinstance(cells, int) and cells < length:
        raise InvalidParams(
            f"kv_cells is {cells}, but one request may have {length} tokens (context_length) and "
            "needs a cell for each; raise kv_cells or lower context_length",
            field="load_options.kv_cells",
            reason="less than context_length",
        )
    if isinstance(wanted.get("parallel"), int):
        wanted["parallel"] = min(wanted["parallel"], most_parallel)
    return wanted


def satisfies(in_force: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an instance (or a load under way) already gives what a request wants.

    A larger context, more parallel requests or more KV cells than asked for satisfy; "auto" is
    satisfied by anything; every other option must be equal to what the instance was given.
    """
    for name, value in wanted.items():
        has = in_force.get(name)
        # gpu_layers may be 1 (one layer) and 1.0 (all of them), which Python holds for equal.
        if value == "auto" or (value == has and type(value) is type(has)):
            continue
        if name in ("context_length", "parallel", "kv_cells") and isinstance(has, int):
            if value <= has:
                continue
            return False
        return False
    return True
