"""Quantized weights: made while a model is read (bitsandbytes), or in its files already.

bitsandbytes has kernels for processors as for CUDA devices; torchao, the other one that pip
provides, kept on a processor as much memory as the weights had before. Embeddings and the output
layer stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from hybridd.wire.errors import InvalidParams, Unsupported

KINDS = ("none", "int8", "int4")
# What files may be stored in -> the packages that their kernels are in.
_STORED: Mapping[str, tuple[str, ...]] = {
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "gptq": ("gptqmodel",),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed_tensors",),
    "torchao": ("torchao",),
    "hqq": ("hqq",),
    "quanto": ("optimum.quanto",),
    "mxfp4": ("triton", "kernels"),
    "fp8": ("triton", "kernels"),
    "fbgemm_fp8": ("fbgemm_gpu",),
    "vptq": ("vptq",),
    "aqlm": ("aqlm",),
}
# These compute on CUDA devices only.
_CUDA_ONLY = frozenset({"mxfp4", "fp8", "fbgemm_fp8", "vptq", "aqlm"})


def check_quantization(wanted: object) -> None:
    """Refuse a load's `quantization` that cannot be made here.

    Raises:
        InvalidParams: It is none of `KINDS`.
        Unsupported: A package is missing.
    """
    if wanted not in KINDS:
        raise InvalidParams(
            f"quantization {wanted!r} is unknown; it can be: {', '.join(KINDS)}",
            field="load_options.quantization",
            reason="unknown",
        )
    missing = _missing(("bitsandbytes", "accelerate"))
    if wanted != "none" and missing:
        raise _unsupported(
            f"quantization {wanted} needs the Python package {missing}, which is not installed; "
            "install it with: pip install 'hybridd[quantization]'"
        )


def check_stored(config: Any, model: str, device: str) -> str | None:
    """How a model's files are quantized; None where they are not.

    Raises:
        Unsupported: The kernels for it are not here; says which package has them.
    """
    said = getattr(config, "quantization_config", None)
    if said is None:
        return None
    method = said.get("quant_method") if isinstance(said, dict) else said.quant_method
    method = str(getattr(method, "value", method) or "an unknown kind")[:40]
    packages = _STORED.get(method)
    if packages is None:
        raise _unsupported(
            f"{model} is stored quantized ({method}), which the huggingface engine cannot load; "
            "take a GGUF build of it"
        )
    if missing := _missing(packages):
        raise _unsupported(
            f"{model} is stored quantized ({method}), for which the Python package {missing} is "
            "missing; install it into hybridd's environment, or take a GGUF build of the model"
        )
    if method in _CUDA_ONLY and not device.startswith("cuda"):
        raise _unsupported(
            f"{model} is stored quantized ({method}), which computes on CUDA devices only; take a "
            "GGUF build of it"
        )
    return method


def quantized_already(model: str, stored: str) -> Unsupported:
    """The refusal of a second quantization."""
    return _unsupported(
        f"{model} is stored quantized ({stored}) already; load it without quantization"
    )


def _missing(packages: tuple[str, ...]) -> str | None:
    for package in packages:
        try:
            found = find_spec(package)
        except ModuleNotFoundError:  # of a package around it
            found = None
        if found is None:
            return package
    return None


def _unsupported(message: str) -> Unsupported:
    return Unsupported(message, capability="quantization", format="huggingface")
