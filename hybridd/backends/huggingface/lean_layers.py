"""Decoder layers of the common kind in fewer calls, with the same numbers to the last bit.

Beside the products of a small model a processor is busy with calling: transformers' layer makes
some sixty calls into torch, through a dozen modules, and after each product much of what a call
needs has left the caches. Here queries and keys are turned together, as they lie behind each other
already, and where they lie; modules are called without their wrappers.

Which layers are of that kind is told by their code, which may name nothing that is not known here,
so that nothing depends on a position or a setting that a trial would not meet; and then by the
trial, whose logits have to be equal (`batch`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from .attention import RowsPass
from .library import torch
from .packing import Fused, fused

# What the code of each function names: attributes, methods, globals, and strings that may be names.
_LAYER = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
_MLP = {"gate_proj", "act_fn", "up_proj", "down_proj"}
_ATTENTION = {
    *("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "layer_idx", "scaling"),
    *("view", "transpose", "reshape", "apply_rotary_pos_emb", "update"),
}
# An attention's code may.
_BESIDE = {
    *("q_norm", "k_norm", "shape", "contiguous", "training", "attention_dropout", "config"),
    *("sliding_window", "getattr", "get_interface", "_attn_implementation"),
    *("ALL_ATTENTION_FUNCTIONS", "eager_attention_forward"),
}
# What it is given.
_PARAMETERS = {
    *("self", "hidden_states", "position_embeddings", "attention_mask", "past_key_values"),
    "kwargs",
}
_ROTARY = {"unsqueeze", "rotate_half"}
_ROTATE = {"shape", "torch", "cat"}
_NORM = {
    *("dtype", "to", "torch", "float32", "pow", "mean", "rsqrt"),
    *("variance_epsilon", "weight"),
}


def replace(model: Any) -> Callable[[], None] | None:
    """Put lean layers in the place of a packed model's own, in passes of many rows.

    Returns:
        What gives the model its own back; None where no layer is of that kind.
    """
    layers = [layer for layer in model.modules() if _is_common(layer)]
    if not layers:
        return None
    made = [_Lean(layer) for layer in layers]  # all, or none where one is of another kind after all
    for layer, lean in zip(layers, made, strict=True):
        layer.forward = lean

    def restore() -> None:
        for layer in layers:
            vars(layer).pop("forward", None)

    return restore


class _Lean:
    """Stands in for a layer's `forward`."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = fused(attention.q_proj, attention.k_proj, attention.v_proj)
        assert qkv is not None
        self._own = layer.forward
        self._before_attention = _norm(layer.input_layernorm)
        self._before_mlp = _norm(layer.post_attention_layernorm)
        self._qkv: Fused = qkv
        self._output = attention.o_proj.forward
        self._norms = None
        if hasattr(attention, "q_norm"):
            self._norms = _norm(attention.q_norm), _norm(attention.k_norm)
        self._dim = attention.head_dim
        self._queries = qkv.sizes[0] // self._dim
        self._turned = (qkv.sizes[0] + qkv.sizes[1]) // self._dim
        self._number = attention.layer_idx
        self._scaling = attention.scaling
        self._gate, self._up = mlp.gate_proj.forward, mlp.up_proj.forward
        self._activate, self._down = mlp.act_fn, mlp.down_proj.forward

    def __call__(
        self,
        hidden_states: Any,
        *,
        attention_mask: Any = None,
        past_key_values: Any = None,
        position_embeddings: Any = None,
        **others: Any,
    ) -> Any:
        rows = past_key_values
        if type(rows) is not RowsPass or attention_mask is not None:
            return self._own(
                hidden_states,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_embeddings=position_embeddings,
                **others,
            )
        seen = self._attend(self._before_attention(hidden_states), rows, position_embeddings)
        hidden_states = seen.add_(hidden_states)
        normed = self._before_mlp(hidden_states)
        thought = self._activate(self._gate(normed)).mul_(self._up(normed))
        return self._down(thought).add_(hidden_states)

    def _attend(self, normed: Any, rows: RowsPass, position_embeddings: Any) -> Any:
        heads = self._qkv.whole(normed).view(1, normed.shape[1], -1, self._dim)
        cos, sin = _folded(rows, position_embeddings)
        queries, keys = heads[:, :, : self._queries], heads[:, :, self._queries : self._turned]
        if self._norms is None:
            _turn(heads[:, :, : self._turned], cos, sin)
        else:
            queries = _turn(self._norms[0](queries), cos, sin)
            keys.copy_(_turn(self._norms[1](keys), cos, sin))
        rows.update_both(heads[:, :, self._queries :], self._number)
        values = heads[:, :, self._turned :]
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
        made = rows.attend(queries, keys, values, self._scaling, None, None)
        return self._output(made.reshape(1, normed.shape[1], -1))


def _turn(heads: Any, cos: Any, sin: Any) -> Any:
    """Rotary embedding of `[1, tokens, heads, dim]`, in place."""
    beside = torch.roll(heads, heads.shape[-1] // 2, -1).mul_(sin)
    return heads.mul_(cos).add_(beside)


def _norm(norm: Any) -> Callable[[Any], Any]:
    """A norm's `forward`, in fewer calls where it is the common one."""
    own: Callable[[Any], Any] = norm.forward
    if _names(type(norm).forward) != _NORM or norm.weight.dtype is not torch.bfloat16:
        return own
    weight = norm.weight
    size = torch.tensor(float(weight.shape[-1]), device=weight.device)
    epsilon = torch.tensor(norm.variance_epsilon, dtype=torch.float32, device=weight.device)

    def normed(rows: Any) -> Any:
        wide = rows.to(torch.float32, copy=True)
        squares = wide.square().sum(-1, keepdim=True)
        wide *= torch.addcdiv(epsilon, squares, size).rsqrt_()
        return wide.to(rows.dtype).mul_(weight)

    return normed


def _folded(rows: RowsPass, position_embeddings: Any) -> tuple[Any, Any]:
    """Cosines and sines for all heads, the first half of the sines negative; once for a pass."""
    cos, sin = position_embeddings
    if rows.rotary is None or rows.rotary[0] is not cos:
        half = sin.shape[-1] // 2
        signed = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        rows.rotary = cos, (cos.unsqueeze(2), signed.unsqueeze(2))
    return rows.rotary[1]


# ------------------------------------------------------------------ which layers


def _is_common(layer: Any) -> bool:
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    names = ("q_proj", "k_proj", "v_proj")
    if attention is None or mlp is None or not all(hasattr(attention, name) for name in names):
        return False
    named = _names(type(attention).forward)
    rotary = _global(type(attention).forward, "apply_rotary_pos_emb")
    return (
        _names(type(layer).forward) == _LAYER
        and _names(type(mlp).forward) == _MLP
        and named >= _ATTENTION
        and named - _ATTENTION <= _BESIDE
        and set(inspect.signature(type(attention).forward).parameters) == _PARAMETERS
        and {"q_norm", "k_norm"}.isdisjoint(named) is not hasattr(attention, "q_norm")
        and _names(rotary) == _ROTARY
        and _names(_global(rotary, "rotate_half")) == _ROTATE
        and fused(*(getattr(attention, name) for name in names)) is not None
        and "forward" not in vars(layer)
        and not any(map(_is_changed, (attention, mlp, *_norms(layer))))
    )


def _norms(layer: Any) -> list[Any]:
    attention = layer.self_attn
    found = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    norms = [layer.input_layernorm, layer.post_attention_layernorm, *found]
    return [norm for norm in norms if norm is not None]


def _is_changed(module: Any) -> bool:
    """Whether somebody has put something in the place of a module's code, or beside it."""
    return bool("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks)


def _global(function: Any, name: str) -> Any:
    """What a function means by a name; None where it is nothing."""
    return getattr(inspect.unwrap(function), "__globals__", {}).get(name)


def _names(function: Any) -> set[str]:
    """What a function's code names, and the code inside of it; "?" where there is none."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return {"?"} if code is None else set(_all_names(code))


def _all_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str) and constant.isidentifier():
            yield constant  # getattr may be given it
        if isinstance(constant, CodeType):
            yield from _all_names(constant)
