"""PROTOCOL's option tables: sampling `options`, `load_options`, and the shapes of messages.

One table serves the check of requests, `rpc.discover`, and the layering of defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Bool, Choice, Field, Float, Int, ListOf, MapOf, OneOf, Struct, Text
from hybridd.wire.errors import InvalidParams

NULL = Choice((None,))
_ADAPTER_SCALE = Struct(
    {"name": Text(1, 256), "scale": Float(-100, 100)},
    required=("name",),
    what="an adapter's name and scale",
)

# Four stop strings are OpenAI's limit; agents use more. 64 keeps the hold-back scan cheap.
SAMPLING: Mapping[str, Field] = {
    "max_tokens": OneOf((Int(0, 2**31 - 1), NULL)),
    "temperature": Float(0, 100),
    "top_p": Float(0, 1),
    "top_k": Int(0, 2**31 - 1),
    "min_p": Float(0, 1),
    "typical_p": Float(0, 1),
    "repeat_penalty": Float(0.01, 100),
    "frequency_penalty": Float(-100, 100),
    "presence_penalty": Float(-100, 100),
    "seed": OneOf((Int(-1, 2**64 - 1), NULL)),
    "stop": OneOf((ListOf(Text(1, 1024), max_length=64), Text(1, 1024), NULL)),
    "logit_bias": MapOf(Float(-1000, 1000), whole=True),
    "logprobs": Int(0, 20),
    "ignore_eos": Bool(),
    "context_shift": Bool(),
    "adapters": ListOf(_ADAPTER_SCALE, max_length=16, distinct="name"),
}

# The end of PROTOCOL's precedence: request, models.configure, the model's own, then these.
SAMPLING_DEFAULTS: Mapping[str, Any] = {
    "max_tokens": None,
    "temperature": 0.8,
    "top_p": 0.95,
    "top_k": 40,
    "min_p": 0.05,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "seed": None,
    "stop": [],
    "logit_bias": {},
    "logprobs": 0,
    "ignore_eos": False,
    "context_shift": False,
    "adapters": [],
}

AUTO = Choice(("auto",))
_ROPE_SCALING = Struct(
    {
        "type": Choice(("none", "linear", "yarn")),
        "factor": Float(0.01, 1000),
        "freq_base": Float(1, 1e12),
        "original_context_length": Int(1, 2**31 - 1),
    },
    what="how positions beyond those of the training are stretched",
)

LOAD: Mapping[str, Field] = {
    "context_length": OneOf((Int(1, 2**31 - 1), AUTO)),
    "parallel": OneOf((Int(1, 256), AUTO)),
    "kv_cells": Int(1, 2**31 - 1),
    "gpu_layers": OneOf((AUTO, Int(0, 100_000), Float(0, 1))),
    "device": Text(1, 64),
    "dtype": Choice(("auto", "float32", "float16", "bfloat16")),
    "quantization": Text(1, 64),
    "kv_cache_type": Choice(
        ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
    ),
    "batch_size": Int(1, 65536),
    "ubatch_size": Int(1, 65536),
    "threads": Int(1, 1024),
    "flash_attention": OneOf((Bool(), AUTO)),
    "mmap": Bool(),
    "mlock": Bool(),
    "tensor_split": ListOf(Float(0, 1_000_000), min_length=1, max_length=16),
    "rope_scaling": _ROPE_SCALING,
    "adapters": ListOf(
        Struct(
            {"name": Text(1, 256), "path_or_id": Text(1, 4096)}, required=("name", "path_or_id")
        ),
        max_length=16,
    ),
    "draft_model": OneOf((Text(1, 4096), NULL)),
}

SAMPLING_FIELD = Struct(SAMPLING, what="an object of sampling options")
LOAD_FIELD = Struct(LOAD, what="an object of load options")

_PART = Struct(
    {"type": Text(1, 64), "text": Text()}, required=("type",), open=True, what="a content part"
)
_MESSAGE = Struct(
    {
        "role": Choice(("system", "user", "assistant", "tool", "developer")),
        "content": OneOf((Text(), ListOf(_PART, max_length=1024), NULL)),
        "name": Text(0, 256),
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
    made = dict(SAMPLING_DEFAULTS)
    for layer in reversed(layers):
        made.update({k: v for k, v in layer.items() if k in SAMPLING_DEFAULTS})
    if isinstance(made["stop"], str):
        made["stop"] = [made["stop"]]
    made["stop"] = list(made["stop"] or [])
    if made["seed"] == -1:
        made["seed"] = None
    return made


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
