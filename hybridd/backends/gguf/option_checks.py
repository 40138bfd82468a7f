"""Load options that llama.cpp cannot do, whatever the model; knows no library.

They are called as in docs/protocol.md. The daemon asks before it unloads anything for a load that
could not come; the engine asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hybridd.wire.errors import InvalidParams, Unsupported

from .estimate import CACHE_TYPES

_GPUS = ("cuda", "gpu", "vulkan", "metal")
_WITHOUT_FLASH_ATTENTION = ("f32", "f16", "bf16")


def check_load_options(load_options: Mapping[str, Any], has_gpu: Callable[[], bool]) -> None:
    """Refuse what the engine would refuse.

    Args:
        load_options: Their shapes were checked.
        has_gpu: Says whether llama.cpp was built for one.

    Raises:
        InvalidParams: A value that llama.cpp does not know.
        Unsupported: An option that this engine does not have.
    """
    given = {k: v for k, v in load_options.items() if v is not None and v != "auto"}
    if given.get("dtype"):
        raise Unsupported("the gguf engine has no dtype", capability="dtype", format="gguf")
    cache_type = cache_type_of(given)
    if cache_type not in CACHE_TYPES:
        raise InvalidParams(
            f"kv_cache_type {cache_type!r} is unknown; there are {', '.join(CACHE_TYPES)}",
            field="load_options.kv_cache_type",
            reason="unknown",
        )
    if given.get("flash_attention") is False and cache_type not in _WITHOUT_FLASH_ATTENTION:
        raise InvalidParams(
            f"kv_cache_type {cache_type} needs flash attention; leave it on",
            field="load_options.flash_attention",
            reason="needed by kv_cache_type",
        )
    device = str(given.get("device", "cpu"))
    kind = device.partition(":")[0]
    if kind not in ("cpu", *_GPUS):
        raise InvalidParams(
            f"device {device!r} is unknown; there are cpu and cuda:N",
            field="load_options.device",
            reason="unknown",
        )
    if kind != "cpu" and not has_gpu():
        raise Unsupported(
            "this build of llama.cpp has no GPU support; load the model on the cpu",
            capability="gpu",
            format="gguf",
        )


def cache_type_of(given: Mapping[str, Any]) -> str:
    """The `kv_cache_type` in force."""
    return str(given.get("kv_cache_type", "f16")).lower()
