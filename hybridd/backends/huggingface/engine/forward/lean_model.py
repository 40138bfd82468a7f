"""A decoder of the common kind in fewer calls, with the same numbers to the last bit.

Beside the products of a small model a processor is busy with calling: transformers' layer makes
some sixty calls into torch, through a dozen modules, and after each product much of what a call
needs has left the caches. Here queries and keys are turned together, as they lie behind each other
already, and where they lie; modules are called without their wrappers.

Which decoders are of that kind is told by their code, which may name nothing that is not known
here, so that nothing depends on a position or a setting that a trial would not meet; and then by
the trial, whose logits have to be equal (`batched`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from ..compat.library import torch
from ..weights.onednn_weights import Fused, fused
from .attention import RowsPass
from .session import Aborted

# What the code of each function names: attributes, methods, globals, and strings that may be names.
_DECODER = {
    *("embed_tokens", "rotary_emb", "layers", "norm", "config", "num_hidden_layers"),
    *("create_causal_mask", "DynamicCache", "get_seq_length", "BaseModelOutputWithPast"),
    *("ValueError", "arange", "device", "shape", "torch", "unsqueeze"),
}
_LAYER = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
_MLP = {"gate_proj", "act_fn", "up_proj", "down_proj"}
_ATTENTION = {
    *("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "layer_idx", "scaling"),
    *("view", "transpose", "reshape", "apply_rotary_pos_emb", "update"),
}
# A decoder's code may: the masks are of our cache's own kind, and its windows of each layer's.
_BESIDE_DECODER = {
    *("create_sliding_window_causal_mask", "sliding_window", "has_sliding_layers", "layer_types"),
    *("full_attention", "sliding_attention", "dict", "enumerate", "isinstance"),
}
# An attention's code may.
_BESIDE_ATTENTION = {
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


def in_fewer_calls(model: Any) -> LeanModel | None:
    """What computes as a packed model does; None where its decoder is of another kind."""
    decoder = model.get_decoder()
    if not _is_common_decoder(decoder) or not all(map(_is_common, decoder.layers)):
        return None
    return LeanModel(model)


class LeanModel:
    """Computes a model's logits for passes of many rows.

    Args:
        model: Of the common kind; it is left as it is.

    Attributes:
        narrow: Whether the last layer computes nothing of tokens whose logits are of no use. Its
            attention then adds up in another order.
    """

    def __init__(self, model: Any) -> None:
        self.narrow = False
        decoder = model.get_decoder()
        self._embed = decoder.embed_tokens.forward
        self._rotary = decoder.rotary_emb.forward
        layers = decoder.layers[: decoder.config.num_hidden_layers]
        self._layers = [_Layer(layer) for layer in layers]
        self._norm = _norm(decoder.norm)
        self._head = model.get_output_embeddings().forward

    def __call__(
        self, ids: Any, rows: RowsPass, wanted: Any, abort: Callable[[], bool] | None
    ) -> Any:
        """Run `ids`, `[1, tokens]`.

        Args:
            wanted: The tokens whose logits are of use; None is all.
            abort: Asked before each layer.

        Returns:
            Their logits, `[wanted, vocabulary]`.

        Raises:
            Aborted: `abort` said so.
        """
        hidden_states = self._embed(ids)
        rotary = _folded(*self._rotary(hidden_states, rows.positions[None]))
        for layer in self._layers:
            if abort is not None and abort():
                raise Aborted
            ends = wanted if self.narrow and layer is self._layers[-1] else None
            hidden_states = layer(hidden_states, rows, rotary, ends)
        if wanted is not None and not self.narrow:
            hidden_states = hidden_states[:, wanted]
        return self._head(self._norm(hidden_states))[0]


class _Layer:
    """Computes what a layer does."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = fused(attention.q_proj, attention.k_proj, attention.v_proj)
        assert qkv is not None
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
        self._gate_up = fused(mlp.gate_proj, mlp.up_proj)
        self._gate, self._up = mlp.gate_proj.forward, mlp.up_proj.forward
        self._activate, self._down = mlp.act_fn.forward, mlp.down_proj.forward

    def __call__(
        self, hidden_states: Any, rows: RowsPass, rotary: tuple[Any, Any], ends: Any
    ) -> Any:
        """What comes of a pass's tokens; with `ends`, the last ones of rows, of those alone."""
        seen = self._attend(self._before_attention(hidden_states), rows, *rotary, ends)
        if ends is not None:
            hidden_states = hidden_states[:, ends]
        hidden_states = seen.add_(hidden_states)
        normed = self._before_mlp(hidden_states)
        if self._gate_up is None:
            gate, up = self._gate(normed), self._up(normed)
        else:
            both, size = self._gate_up.whole(normed), self._gate_up.sizes[0]
            gate, up = both[..., :size], both[..., size:]
        return self._down(self._activate(gate).mul_(up)).add_(hidden_states)

    def _attend(self, normed: Any, rows: RowsPass, cos: Any, sin: Any, ends: Any) -> Any:
        heads = self._qkv.whole(normed).view(1, normed.shape[1], -1, self._dim)
        queries, keys = heads[:, :, : self._queries], heads[:, :, self._queries : self._turned]
        if self._norms is None:
            _turn(heads[:, :, : self._turned], cos, sin)
        else:
            queries = _turn(self._norms[0](queries), cos, sin)
            keys.copy_(_turn(self._norms[1](keys), cos, sin))
        rows.update_both(heads[:, :, self._queries :], self._number)
        values = heads[:, :, self._turned :]
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
        if ends is None:
            made = rows.attend(queries, keys, values, self._scaling, None, None)
        else:
            made = rows.attend_ends(queries[:, :, ends], self._scaling)
        return self._output(made.flatten(2))


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


def _folded(cos: Any, sin: Any) -> tuple[Any, Any]:
    """Cosines and sines, `[1, tokens, dim]`, for all heads; the first half of sines negative."""
    half = sin.shape[-1] // 2
    signed = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    return cos.unsqueeze(2), signed.unsqueeze(2)


# ------------------------------------------------------------------ which decoders


def _is_common_decoder(decoder: Any) -> bool:
    named = _names(type(decoder).forward)
    return (
        named >= _DECODER
        and named - _DECODER <= _BESIDE_DECODER
        and len(decoder.layers) >= decoder.config.num_hidden_layers
        and not any(map(_is_changed, (decoder, decoder.embed_tokens, decoder.rotary_emb)))
        and not _is_changed(decoder.norm)
    )


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
        and named - _ATTENTION <= _BESIDE_ATTENTION
        and set(inspect.signature(type(attention).forward).parameters) == _PARAMETERS
        and {"q_norm", "k_norm"}.isdisjoint(named) is not hasattr(attention, "q_norm")
        and _names(rotary) == _ROTARY
        and _names(_global(rotary, "rotate_half")) == _ROTATE
        and fused(*(getattr(attention, name) for name in names)) is not None
        and not any(map(_is_changed, (layer, attention, mlp, mlp.act_fn, *_norms(layer))))
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
