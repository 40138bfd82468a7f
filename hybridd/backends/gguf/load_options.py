"""PROTOCOL's load options, read for llama.cpp: every one is either meant or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hybridd.wire.errors import InvalidParams, Unsupported

from .library import llama

CACHE_TYPES = {
    "f32": llama.GGML_TYPE_F32,
    "f16": llama.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16, which the binding leaves out
    "q8_0": llama.GGML_TYPE_Q8_0,
    "q5_1": llama.GGML_TYPE_Q5_1,
    "q5_0": llama.GGML_TYPE_Q5_0,
    "q4_1": llama.GGML_TYPE_Q4_1,
    "q4_0": llama.GGML_TYPE_Q4_0,
    "iq4_nl": llama.GGML_TYPE_IQ4_NL,
}
# When nobody settled it: enough for a conversation, and small beside any model's weights.
_AUTO_CONTEXT = 4096
_BATCH = 2048  # llama.cpp's own defaults
_UBATCH = 512
ALL_LAYERS = -1  # llama.cpp's way to say all of them


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options in force.

    Attributes:
        context_length: None leaves it to the model and `_AUTO_CONTEXT`.
        gpu_layers: `ALL_LAYERS`, a number, or a fraction that the model's layers settle.
        flash_attention: None leaves it to llama.cpp.
        threads: None leaves it to the model's size.
    """

    context_length: int | None
    batch_size: int
    ubatch_size: int
    threads: int | None
    gpu_layers: int | float
    main_gpu: int | None
    mmap: bool
    flash_attention: bool | None
    kv_cache_type: str

    @classmethod
    def from_wire(cls, options: Mapping[str, Any]) -> Self:
        """Read them; None and "auto" leave a value to us.

        Raises:
            InvalidParams: A value that llama.cpp does not know.
            Unsupported: An option that this engine does not have.
        """
        given = {k: v for k, v in options.items() if v is not None and v != "auto"}
        for name in ("adapters", "draft_model", "dtype"):
            if given.get(name):
                raise Unsupported(f"the gguf engine has no {name}", capability=name, format="gguf")
        cache_type = str(given.get("kv_cache_type", "f16")).lower()
        if cache_type not in CACHE_TYPES:
            raise InvalidParams(
                f"kv_cache_type {cache_type!r} is unknown; there are {', '.join(CACHE_TYPES)}",
                field="load_options.kv_cache_type",
                reason="unknown",
            )
        flash = given.get("flash_attention")
        if flash is False and cache_type not in ("f32", "f16", "bf16"):
            raise InvalidParams(
                f"kv_cache_type {cache_type} needs flash attention; leave it on",
                field="load_options.flash_attention",
                reason="needed by kv_cache_type",
            )
        gpu_layers, main_gpu = _placement(given)
        batch = int(given.get("batch_size", _BATCH))
        return cls(
            context_length=given.get("context_length"),
            batch_size=batch,
            ubatch_size=min(int(given.get("ubatch_size", _UBATCH)), batch),
            threads=given.get("threads"),
            gpu_layers=gpu_layers,
            main_gpu=main_gpu,
            mmap=bool(given.get("mmap", True)),
            flash_attention=flash,
            kv_cache_type=cache_type,
        )

    def context_for(self, trained: int) -> int:
        """The context length in force for a model that was made for `trained` tokens."""
        return self.context_length or (min(trained, _AUTO_CONTEXT) if trained else _AUTO_CONTEXT)

    def layers_for(self, layers: int) -> int:
        """How many of a model's layers go to the GPU; the output layer counts as one more."""
        if isinstance(self.gpu_layers, float):
            return min(layers + 1, math.floor(self.gpu_layers * (layers + 1) + 0.5))
        return self.gpu_layers


def _placement(given: Mapping[str, Any]) -> tuple[int | float, int | None]:
    device = str(given.get("device", ""))
    kind, _, number = device.partition(":")
    if kind not in ("", "cpu", "cuda", "gpu", "vulkan", "metal"):
        raise InvalidParams(
            f"device {device!r} is unknown; there are cpu and cuda:N",
            field="load_options.device",
            reason="unknown",
        )
    if not llama.llama_supports_gpu_offload():
        if kind not in ("", "cpu"):
            raise Unsupported(
                "this build of llama.cpp has no GPU support; load the model on the cpu",
                capability="gpu",
                format="gguf",
            )
        return 0, None
    main_gpu = int(number) if number.isdecimal() else None
    if kind == "cpu":
        return 0, None
    layers = given.get("gpu_layers", 1.0)
    if isinstance(layers, float) and layers >= 1:
        return ALL_LAYERS, main_gpu
    return layers, main_gpu
