"""Weights in the order in which the processor multiplies them.

oneDNN reads a matrix of 16-bit floats in blocks. Left as a checkpoint has it, it is read at half
the speed in every step (measured: docs/huggingface.md); brought into that order once, at load, it
is no longer a mapped file but memory of the worker, of the same size.
"""

from __future__ import annotations

import functools
from typing import Any

from hybridd.backends.api import Report

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
    """Pack the model's linear layers, in place.

    A layer whose matrix is also the embedding stays as it is: it would be there twice.

    Raises:
        LoadCancelled: `report` said so; the model is of no use then.
    """
    linears = _linears(model)
    with torch.inference_mode():
        for done, module in enumerate(linears):
            report("packing", done, len(linears))
            packed = torch.ops.mkldnn._reorder_linear_weight(module.weight, None)
            bias = None if module.bias is None else module.bias.detach().clone()
            module.forward = functools.partial(_linear, packed, bias)
            # What asks a layer for its dtype still gets it.
            empty = torch.empty(0, dtype=module.weight.dtype)
            module.weight = torch.nn.Parameter(empty, requires_grad=False)
        for parameter in model.parameters():
            # The last ones that hold the mapped files open.
            parameter.data = parameter.data.clone()
    report("packing", len(linears), len(linears))


def _linears(model: Any) -> list[Any]:
    embedding = model.get_input_embeddings()
    shared = getattr(embedding, "weight", None)
    return [
        module
        for module in model.modules()
        if type(module) is torch.nn.Linear
        and type(module.weight.data) is torch.Tensor
        and module.weight.dtype is torch.bfloat16
        and module.weight is not shared
    ]


def _linear(packed: Any, bias: Any, rows: Any) -> Any:
    return torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
