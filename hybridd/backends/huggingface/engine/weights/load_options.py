"""docs/protocol.md's load options, read for transformers: every one is either meant or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...option_checks import check_load_options, gpu_number, no_device
from ..compat.imports import torch

# When nobody settled it: as in the gguf engine.
_AUTO_CONTEXT = 4096
# Requests at a time, when nobody settled it: what shares a forward pass costs little more than
# one request alone.
_AUTO_PARALLEL = 4
# Tokens of a prompt in one step: enough to keep a processor busy, little enough that the loop
# hears a ping in between.
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options in force.

    Attributes:
        context_length: None leaves it to the model and `_AUTO_CONTEXT`.
        dtype: None leaves it to the checkpoint and the device.
        quantization: none, int8 or int4, made while the weights are read.
        threads: None leaves it to the model's size.
        parallel: Requests at a time.
        kv_cells: Of all of them together; None is the context length for each.
        mmap: Whether weights stay mapped from their files; None leaves it to what is faster.
    """

    context_length: int | None
    parallel: int
    kv_cells: int | None
    device: str
    dtype: str | None
    quantization: str
    chunk: int
    threads: int | None
    mmap: bool | None

    @classmethod
    def from_wire(cls, options: Mapping[str, Any]) -> Self:
        """Read them; None and "auto" leave a value to us.

        Raises:
            InvalidParams: A value that this engine does not know.
            Unsupported: An option that it does not have.
        """
        given = {k: v for k, v in options.items() if v is not None and v != "auto"}
        check_load_options(options, lambda: torch.cuda.device_count() > 0)
        chunk = int(given.get("ubatch_size") or given.get("batch_size") or _CHUNK)
        return cls(
            context_length=given.get("context_length"),
            parallel=int(given.get("parallel", _AUTO_PARALLEL)),
            kv_cells=given.get("kv_cells"),
            device=_device(given.get("device")),
            dtype=given.get("dtype"),
            quantization=given.get("quantization", "none"),
            chunk=max(1, min(chunk, _CHUNK)),
            threads=given.get("threads"),
            mmap=given.get("mmap"),
        )

    def context_for(self, trained: int | None) -> int:
        """The context length in force for a model that was made for `trained` tokens."""
        return self.context_length or (min(trained, _AUTO_CONTEXT) if trained else _AUTO_CONTEXT)

    def dtype_for(self, stored: Any) -> torch.dtype:
        """The dtype in force for a checkpoint of dtype `stored`.

        Processors have no arithmetic for float16, so on them such a checkpoint is widened.
        """
        if self.dtype is not None:
            asked: torch.dtype = getattr(torch, self.dtype)  # of `option_checks.DTYPES`
            return asked
        known = isinstance(stored, torch.dtype) and stored.is_floating_point
        dtype: torch.dtype = stored if known else torch.float32
        if self.device == "cpu" and dtype not in (torch.float32, torch.bfloat16):
            return torch.float32
        return dtype


def _device(wanted: object) -> str:
    if wanted is None:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    number = gpu_number(wanted)
    if number is None:
        return "cpu"
    if number < torch.cuda.device_count():
        return f"cuda:{number}"
    raise no_device(wanted)
