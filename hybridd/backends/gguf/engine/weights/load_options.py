"""docs/protocol.md's load options, read for llama.cpp: every one is either meant or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from ...estimate import DRAFT_CACHE_TYPE
from ...option_checks import cache_type_of, check_load_options
from .llama import llama

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
FLASH = {
    None: llama.LLAMA_FLASH_ATTN_TYPE_AUTO,
    False: llama.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    True: llama.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}
# When neither client nor model settled it: enough for a conversation, and small beside any model's
# weights.
_AUTO_CONTEXT = 4096
_AUTO_PARALLEL = 4
_BATCH = 2048  # llama.cpp's own defaults
_UBATCH = 512
ALL_LAYERS = -1  # llama.cpp's way to say all of them


_ROPE_TYPES = {
    "none": llama.LLAMA_ROPE_SCALING_TYPE_NONE,
    "linear": llama.LLAMA_ROPE_SCALING_TYPE_LINEAR,
    "yarn": llama.LLAMA_ROPE_SCALING_TYPE_YARN,
}


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """`rope_scaling`: how positions beyond those of the training are stretched; None: the file's.

    Attributes:
        kind: One of `_ROPE_TYPES`.
        factor: How many times longer than in training the context is.
        freq_base: The frequency base in place of the file's.
        original_context_length: For yarn, the training's.
    """

    kind: str | None = None
    factor: float | None = None
    freq_base: float | None = None
    original_context_length: int | None = None

    @classmethod
    def from_wire(cls, given: Mapping[str, Any]) -> Self:
        """Read the option; its shape was checked by the daemon."""
        return cls(
            given.get("type"),
            given.get("factor"),
            given.get("freq_base"),
            given.get("original_context_length"),
        )

    def to_wire(self) -> dict[str, Any]:
        """The option as it was given; nothing when it was not."""
        names = {"kind": "type"}
        given = {names.get(k, k): v for k, v in asdict(self).items() if v is not None}
        return {"rope_scaling": given} if given else {}

    def apply(self, params: Any) -> None:
        """Write it into a context's parameters."""
        if self.kind is not None:
            params.rope_scaling_type = _ROPE_TYPES[self.kind]
        if self.factor is not None:
            params.rope_freq_scale = 1 / self.factor
        if self.freq_base is not None:
            params.rope_freq_base = self.freq_base
        if self.original_context_length is not None:
            params.yarn_orig_ctx = self.original_context_length


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options in force.

    Attributes:
        context_length: None leaves it to the model and `_AUTO_CONTEXT`.
        kv_cells: Of all sequences together; None is context length x parallel.
        gpu_layers: `ALL_LAYERS`, a number, or a fraction that the model's layers settle.
        flash_attention: None leaves it to llama.cpp.
        threads: None leaves it to the model's size.
        adapters: Their names; where they lie is said beside the options.
        draft_model: Its id; the same holds for it.
    """

    context_length: int | None
    parallel: int
    kv_cells: int | None
    batch_size: int
    ubatch_size: int
    threads: int | None
    gpu_layers: int | float
    main_gpu: int | None
    tensor_split: Sequence[float]
    mmap: bool
    mlock: bool
    rope: RopeScaling
    flash_attention: bool | None
    kv_cache_type: str
    adapters: Sequence[str]
    draft_model: str | None

    @classmethod
    def from_wire(cls, options: Mapping[str, Any]) -> Self:
        """Read them; None and "auto" leave a value to us.

        Raises:
            InvalidParams: A value that llama.cpp does not know.
            Unsupported: An option that this engine does not have.
        """
        given = {k: v for k, v in options.items() if v is not None and v != "auto"}
        check_load_options(options, llama.llama_supports_gpu_offload)
        gpu_layers, main_gpu = _placement(given)
        batch = int(given.get("batch_size", _BATCH))
        return cls(
            context_length=given.get("context_length"),
            parallel=int(given.get("parallel", _AUTO_PARALLEL)),
            kv_cells=given.get("kv_cells"),
            batch_size=batch,
            ubatch_size=min(int(given.get("ubatch_size", _UBATCH)), batch),
            threads=given.get("threads"),
            gpu_layers=gpu_layers,
            main_gpu=main_gpu,
            tensor_split=given.get("tensor_split", ()),
            mmap=bool(given.get("mmap", True)),
            mlock=bool(given.get("mlock", False)),
            rope=RopeScaling.from_wire(given.get("rope_scaling", {})),
            flash_attention=given.get("flash_attention"),
            kv_cache_type=cache_type_of(given),
            adapters=[str(each["name"]) for each in given.get("adapters", ())],
            draft_model=given.get("draft_model"),
        )

    def for_draft(self, layers: int, context_length: int, parallel: int, cells: int) -> Self:
        """The options of the draft model beside a model with these.

        It has as large a part of itself on the GPU as the model has: so the planner shares both
        out. Positions need no scaling within what it was trained for.

        Args:
            layers: The model's.
            context_length, parallel, cells: Of the draft model's context.
        """
        placed = self.layers_for(layers)
        whole = placed == ALL_LAYERS or placed > layers
        return replace(
            self,
            context_length=context_length,
            parallel=parallel,
            kv_cells=cells,
            gpu_layers=ALL_LAYERS if whole else placed and placed / (layers + 1),
            rope=RopeScaling(),
            kv_cache_type=DRAFT_CACHE_TYPE,
            adapters=(),
            draft_model=None,
        )

    def context_for(self, trained: int) -> int:
        """The context length in force for a model that was made for `trained` tokens."""
        return self.context_length or (min(trained, _AUTO_CONTEXT) if trained else _AUTO_CONTEXT)

    @property
    def splits(self) -> bool:
        """Whether layers are shared out among several GPUs."""
        return bool(self.tensor_split) and self.gpu_layers != 0

    @property
    def load_mode(self) -> int:
        """llama.cpp's way to bring the file into memory."""
        if self.mlock:
            locked = llama.LLAMA_LOAD_MODE_MMAP_MLOCK, llama.LLAMA_LOAD_MODE_MLOCK
            return int(locked[0] if self.mmap else locked[1])
        return int(llama.LLAMA_LOAD_MODE_MMAP if self.mmap else llama.LLAMA_LOAD_MODE_NONE)

    def layers_for(self, layers: int) -> int:
        """How many of a model's layers go to the GPU; the output layer counts as one more."""
        if isinstance(self.gpu_layers, float):
            return min(layers + 1, math.floor(self.gpu_layers * (layers + 1) + 0.5))
        return self.gpu_layers


def _placement(given: Mapping[str, Any]) -> tuple[int | float, int | None]:
    device = str(given.get("device", ""))
    kind, _, number = device.partition(":")
    if not llama.llama_supports_gpu_offload():
        return 0, None
    main_gpu = int(number) if number.isdecimal() else None
    if kind == "cpu":
        return 0, None
    layers = given.get("gpu_layers", 1.0)
    if isinstance(layers, float) and layers >= 1:
        return ALL_LAYERS, main_gpu
    return layers, main_gpu
