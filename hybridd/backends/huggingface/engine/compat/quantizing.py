"""Weights that transformers quantizes as it reads them, by bitsandbytes."""

from __future__ import annotations

import logging
from typing import Any

from .imports import torch, transformers


def configuration(quantization: str, dtype: torch.dtype) -> dict[str, Any]:
    """The argument that makes transformers quantize while it reads; none for "none"."""
    if quantization == "none":
        return {}
    # At each pass it would say that it computes in float16, which is what it is for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if quantization == "int8":
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config}
