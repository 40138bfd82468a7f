"""oneDNN's products with matrices that lie in the processor's own order.

torch uses them in its compiler and documents none of them. Before the first one is relied on a
small matrix is multiplied both ways.
"""

from __future__ import annotations

from typing import Any

from .imports import Tensor, torch
from .leaning import Leaning, Missing

PRODUCTS = Leaning(
    name="torch.ops.mkldnn._reorder_linear_weight and ._linear_pointwise",
    purpose="a matrix is brought into the processor's order once; products with it take half the "
    "time then",
    seen="torch 2.6.0 to 2.13.0",
    without="weights are not packed: this torch lacks oneDNN's products, or they are wrong",
)
BFLOAT16 = Leaning(
    name="torch.ops.mkldnn._is_mkldnn_bf16_supported",
    purpose="tells whether the processor has products of bfloat16",
    seen="torch 2.6.0 to 2.13.0",
    without="weights are not packed: this processor has no bf16 products",
)
# Rows in the trial: one, several, and enough for another kernel.
_TRIED_ROWS = (1, 2, 5, 33)


class Products:
    """Products with packed matrices.

    Args:
        dtype: Of the matrices.

    Raises:
        Missing: There are none here, or they are wrong.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        backend: Any = torch.backends.mkldnn
        if not backend.is_available():
            raise Missing(PRODUCTS.without)
        if dtype is torch.bfloat16 and not _has_bfloat16():
            raise Missing(BFLOAT16.without)
        try:
            operators: Any = torch.ops.mkldnn
            self._reorder = operators._reorder_linear_weight
            # By its name: to find the overload takes as long as a small product.
            self._product = operators._linear_pointwise.default
            right = self._is_right(dtype)
        except Exception as exc:
            # torch raises what it likes at an operator that it lacks, or that takes other things.
            raise Missing(PRODUCTS.without) from exc
        if not right:
            raise Missing(PRODUCTS.without)

    def pack(self, weight: Tensor) -> Tensor:
        """A matrix `(outputs, inputs)` in the processor's order; opaque but for `unpack`."""
        packed: Tensor = self._reorder(weight, None)
        return packed

    def unpack(self, packed: Tensor) -> Tensor:
        """The matrix as it was."""
        return packed.to_dense()

    def multiply(self, rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        """`torch.nn.functional.linear` of `(…, inputs)` with a packed matrix: `(…, outputs)`."""
        product: Tensor = self._product(rows, packed, bias, "none", [], "")
        return product

    def _is_right(self, dtype: torch.dtype) -> bool:
        """Whether products of a small matrix are what they should be."""
        drawn = torch.Generator().manual_seed(1)
        weight, bias = (torch.randn(*size, generator=drawn).to(dtype) for size in ((96, 64), (96,)))
        packed = self.pack(weight)
        if not torch.equal(self.unpack(packed), weight):
            return False
        for count in _TRIED_ROWS:
            rows = torch.randn(1, count, 64, generator=drawn).to(dtype)
            for added in (None, bias):
                expected = torch.nn.functional.linear(
                    rows.float(), weight.float(), None if added is None else added.float()
                )
                product = self.multiply(rows, packed, added)
                if product.shape != expected.shape:
                    return False
                # As far as a result of bfloat16 is rounded.
                if not (product.float() - expected).norm() <= 0.01 * expected.norm():
                    return False
        return True


def _has_bfloat16() -> bool:
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())
