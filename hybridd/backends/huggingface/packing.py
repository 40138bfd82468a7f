"""Weights in the order in which the processor multiplies them.

oneDNN reads a matrix of 16-bit floats in blocks. Left as a checkpoint has it, it is read at half
the speed in every step (measured: docs/huggingface.md); brought into that order once, at load, it
is no longer a mapped file but memory of the worker, of the same size. The table of embeddings stays
mapped, by itself: of a large vocabulary few rows are ever looked up.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from hybridd.backends.api import Report
from hybridd.backends.cpu import usable_cores

from .library import torch

# Below this it would take longer than it is worth: such a model computes in no time.
_SMALL_BYTES = 32 * 1024 * 1024


def packable(model: Any, device: str, weights_bytes: int) -> bool:
    """Whether packing is of use for a model."""
    onednn: Any = torch.backends.mkldnn
    return (
        device == "cpu"
        and weights_bytes >= _SMALL_BYTES
        and onednn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and bool(_linears(model))
    )


def pack(model: Any, report: Report) -> None:
    """Pack the model's linear layers, in place, and let go of the files but for embeddings.

    All cores take part, as in every load, however many threads the model will compute with.

    Raises:
        LoadCancelled: `report` said so; the model is of no use then.
    """
    linears = _linears(model)
    with torch.inference_mode(), _packed(linears) as ready:
        for done, (module, packed) in enumerate(zip(linears, ready, strict=True)):
            report("packing", done, len(linears))
            bias = None if module.bias is None else module.bias.detach().clone()
            module.forward = functools.partial(_linear, packed, bias)
            # What asks a layer for its dtype still gets it.
            empty = torch.empty(0, dtype=module.weight.dtype)
            module.weight = torch.nn.Parameter(empty, requires_grad=False)
        table: Any = getattr(model.get_input_embeddings(), "weight", None)
        for parameter in model.parameters():
            # The last ones that hold the mapped files open.
            alone = mapped_alone(parameter.data) if parameter is table else None
            parameter.data = parameter.data.clone() if alone is None else alone
    report("packing", len(linears), len(linears))


@contextmanager
def _packed(linears: list[Any]) -> Iterator[Iterator[Any]]:
    """Their packed weights, in that order, as they get ready.

    A layer is one thread's: most of the time goes into touching new memory, where threads that
    share a layer wait for each other.
    """

    def packed(module: Any) -> Any:
        with torch.inference_mode():
            return torch.ops.mkldnn._reorder_linear_weight(module.weight, None)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(usable_cores(), "packing")
    try:
        yield pool.map(packed, linears)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def mapped_alone(tensor: Any) -> Any | None:
    """The same numbers out of the same file, in a mapping that holds nothing else.

    Returns:
        None when they are not in a mapped file, were changed since, or that file is gone.
    """
    found = _place(tensor.data_ptr())
    if found is None or not tensor.is_contiguous():
        return None
    path, inode, offset = found
    begin = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_ino != inode:
            return None
        # Private: torch wants memory that it may write to, and the file is not to be.
        data = mmap.mmap(
            descriptor,
            offset - begin + tensor.nbytes,
            flags=mmap.MAP_PRIVATE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
            offset=begin,
        )
    except (OSError, ValueError):  # no room, or the file is shorter now
        return None
    finally:
        os.close(descriptor)
    numbers = torch.frombuffer(
        data, dtype=tensor.dtype, count=tensor.numel(), offset=offset - begin
    )
    return numbers.view(tensor.shape)


def _place(address: int) -> tuple[str, int, int] | None:
    """The mapped file at an address: its path and inode, and the address's offset in it.

    None also where pages of the mapping are copies that were written to.
    """
    found = None
    with open("/proc/self/smaps") as maps:
        for line in maps:
            name, *rest = line.split(maxsplit=5)
            if name == "Anonymous:" and found is not None:
                return found if rest[0] == "0" else None
            if name.endswith(":"):
                continue
            start, end = (int(part, 16) for part in name.split("-"))
            if start <= address < end:
                _, offset, _, inode, *path = rest
                if not path or not path[0].startswith("/"):
                    return None
                found = path[0].rstrip("\n"), int(inode), int(offset, 16) + address - start
    return None


def _linears(model: Any) -> list[Any]:
    return [
        module
        for module in model.modules()
        if type(module) is torch.nn.Linear
        and type(module.weight.data) is torch.Tensor
        and module.weight.dtype is torch.bfloat16
    ]


def _linear(packed: Any, bias: Any, rows: Any) -> Any:
    # The overload by its name: finding it takes as long as a small product.
    return torch.ops.mkldnn._linear_pointwise.default(rows, packed, bias, "none", [], "")
