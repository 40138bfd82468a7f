"""Load options that transformers cannot do, whatever the model; knows no torch.

They are called as in docs/protocol.md. The daemon asks before it unloads anything for a load that
could not come; the engine asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from hybridd.wire.errors import InvalidParams, Unsupported

from .quantization import check_quantization

DTYPES = ("float32", "float16", "bfloat16")


def check_load_options(load_options: Mapping[str, Any], has_gpu: Callable[[], bool]) -> None:
    """Refuse what the engine would refuse.

    Args:
        load_options: Their shapes were checked.
        has_gpu: Says whether torch may have one.

    Raises:
        InvalidParams: A value that this engine does not know.
        Unsupported: An option that it does not have, or whose package is missing.
    """
    given = {k: v for k, v in load_options.items() if v is not None and v != "auto"}
    if given.get("draft_model"):
        raise _unsupported("draft_model", "the huggingface engine has no draft models yet")
    if given.get("adapters") and find_spec("peft") is None:
        raise _unsupported(
            "adapters",
            "adapters need the Python package peft, which is not installed; install it with: "
            "pip install 'hybridd[adapters]'",
        )
    check_quantization(given.get("quantization", "none"))
    dtype = given.get("dtype")
    if dtype is not None and dtype not in DTYPES:
        raise InvalidParams(
            f"dtype {dtype!r} is unknown; there are auto, {', '.join(DTYPES)}",
            field="load_options.dtype",
            reason="unknown",
        )
    if given.get("kv_cache_type") not in (None, "f16", "bf16", "f32"):
        raise _unsupported("kv_cache_type", "the huggingface engine keeps its cache unquantized")
    for name in ("mlock", "tensor_split", "rope_scaling"):
        if given.get(name):
            raise _unsupported(name, f"the huggingface engine has no {name}")
    if gpu_number(given.get("device")) is not None and not has_gpu():
        raise no_device(given["device"])


def gpu_number(device: object) -> int | None:
    """Which GPU a `device` is; None for the processor, and where nothing was said.

    Raises:
        InvalidParams: It is neither.
    """
    kind, _, number = str(device or "cpu").partition(":")
    if kind in ("cuda", "gpu") and (not number or number.isdecimal()):
        return int(number or 0)
    if (kind, number) != ("cpu", ""):
        raise InvalidParams(
            f"device {device!r} is unknown; there are cpu and cuda:N",
            field="load_options.device",
            reason="unknown",
        )
    return None


def no_device(device: object) -> InvalidParams:
    """The error of a GPU that is not there."""
    return InvalidParams(
        f"there is no device {device}; load the model on the cpu",
        field="load_options.device",
        reason="absent",
    )


def _unsupported(capability: str, message: str) -> Unsupported:
    return Unsupported(message, capability=capability, format="huggingface")
