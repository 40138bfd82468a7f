"""What is left of a layer's weight once the layer computes by a packed one.

Most layers are only ever called, and then nothing asks for it but its dtype. Some models compute
with a weight themselves (Mamba's time steps) or change it before the first pass (RWKV). As soon as
anything of the kind is tried the layer gets its weight back, and is one that nobody packed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..compat.imports import Tensor, torch

# What can be told without the numbers. To torch's stubs properties are what they give.
_Tensor: Any = torch.Tensor
_LOOKS = frozenset(
    {
        _Tensor.dtype.__get__,
        _Tensor.device.__get__,
        _Tensor.layout.__get__,
        _Tensor.grad_fn.__get__,
        _Tensor.requires_grad.__get__,
        _Tensor.is_floating_point,
        _Tensor.is_complex,
    }
)


class StandIn(torch.nn.Parameter):
    """A parameter without numbers; see the module.

    Args:
        module: The layer, whose `forward` was replaced.
        unpack: Makes the weight anew.
    """

    def __new__(cls, module: Any, unpack: Callable[[], Tensor]) -> StandIn:
        """Make what is to stand for `module.weight`."""
        plain = torch.empty(0, dtype=module.weight.dtype)
        stand_in: StandIn = super().__new__(cls, plain, requires_grad=False)
        stand_in._plain = plain
        stand_in._unpack = unpack
        # The layer has this one: a strong reference would keep both until the next collection.
        stand_in._module = weakref.ref(module)
        return stand_in

    def __init__(self, module: Any, unpack: Callable[[], Tensor]) -> None:
        self._plain: Tensor
        self._unpack: Callable[[], Tensor] | None
        self._module: weakref.ref[Any]

    def weight(self) -> Tensor:
        """The layer's weight, which it computes by from now on."""
        module = self._module()
        assert module is not None, "the layer is gone"
        if self._unpack is not None:
            del module.forward
            module.weight = torch.nn.Parameter(self._unpack(), requires_grad=False)
            self._unpack = None
        weight: Tensor = module.weight
        return weight

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """torch's way to let a tensor have a say in what is done with it."""
        if func in _LOOKS:
            return func(args[0]._plain, *args[1:], **kwargs or {})
        return func(*_unpacked(args), **_unpacked(kwargs or {}))


def _unpacked(value: Any) -> Any:
    """Arguments of a function of torch's, with weights for what stands in for them."""
    if isinstance(value, StandIn):
        return value.weight()
    if type(value) in (tuple, list):
        return type(value)(map(_unpacked, value))
    if type(value) is dict:
        return {name: _unpacked(one) for name, one in value.items()}
    return value
