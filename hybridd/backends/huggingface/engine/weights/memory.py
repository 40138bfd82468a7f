"""What a worker's memory is taken by: mappings of tensors' own, and what libraries hold back."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import Any

from ..compat.imports import Tensor, torch

# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# What is smaller comes from memory that is kept; the allocator takes no larger limit.
_HEAP_BYTES = 32 * 1024 * 1024
_KEPT_BYTES = 128 * 1024 * 1024
# oneDNN's own and torch's of them.
_PROGRAMS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
_KEPT_PROGRAMS = "32"


def fresh(count: int, dtype: torch.dtype) -> Tensor:
    """That many zeros, `(count,)`, of which a page takes memory once it is written to.

    All of it is the system's again when the tensor is gone; what comes from the C library may stay
    with the thread that had it.

    Raises:
        MemoryError: There is not enough.
    """
    if not count:
        return torch.zeros(0, dtype=dtype)
    try:
        size = count * dtype.itemsize
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as exc:
        raise MemoryError("there is no memory for more numbers") from exc
    return torch.frombuffer(pages, dtype=dtype)


def mapped_alone(tensor: Tensor) -> Tensor | None:
    """The same numbers out of the same file, in a mapping that holds nothing else.

    Returns:
        None when they are not in a mapped file, were changed since, or that file is gone.
    """
    source = _mapped_file(tensor.data_ptr())
    if source is None or not tensor.is_contiguous():
        return None
    path, inode, offset = source
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


def give_back_memory() -> None:
    """Return to the system what was allocated for weights as they were before."""
    with contextlib.suppress(AttributeError, OSError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def keep_memory() -> None:
    """Keep from here on what a pass lets go of, for the next one.

    What is given back to the system costs more when it comes again than what is computed in it: of
    a prompt's pass of a small model a tenth of the time (docs/performance.md).
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library than GNU's
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_MMAP_THRESHOLD, _HEAP_BYTES)
        allocator.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def keep_few_programs(model: Any) -> None:
    """Let oneDNN keep few of its programs, of which each number of rows needs its own.

    There is one for each shape of weights, too, of over half a megabyte and made in a millisecond,
    and prompts have many lengths: of the thousand that it would keep a worker would have a gigabyte
    in the end. It is asked at the first product. Experts get any number of rows in each pass, so
    that a model with such would wait for programs.
    """
    if any(name.endswith("experts") for name, _ in model.named_modules()):
        return
    for name in _PROGRAMS:
        os.environ.setdefault(name, _KEPT_PROGRAMS)


def _mapped_file(address: int) -> tuple[str, int, int] | None:
    """The mapped file at an address: its path and inode, and the address's offset in it.

    None also where pages of the mapping are copies that were written to.
    """
    file = None
    with open("/proc/self/smaps") as maps:
        for line in maps:
            name, *rest = line.split(maxsplit=5)
            if name == "Anonymous:" and file is not None:
                return file if rest[0] == "0" else None
            if name.endswith(":"):
                continue
            start, end = (int(part, 16) for part in name.split("-"))
            if start <= address < end:
                _, offset, _, inode, *path = rest
                if not path or not path[0].startswith("/"):
                    return None
                file = path[0].rstrip("\n"), int(inode), int(offset, 16) + address - start
    return None
