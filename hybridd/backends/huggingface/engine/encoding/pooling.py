"""From hidden states to one vector: sentence-transformers' poolings and modules, in torch.

Inputs are padded on the right; a mask says which tokens count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import load_file

from hybridd.wire.errors import ModelInvalid

from ...sentence import Step
from ..compat.imports import Tensor, torch


def pool(hidden: Tensor, mask: Tensor, poolings: Sequence[str]) -> Tensor:
    """Pooled vectors.

    Args:
        hidden: Last hidden states, (inputs, tokens, size), float32.
        mask: 1 for a token that counts, 0 for others and for padding, (inputs, tokens).
        poolings: Of `sentence.POOLINGS`.

    Returns:
        (inputs, size * len(poolings)).
    """
    return torch.cat(
        [_POOL[name](hidden, mask.unsqueeze(-1).to(hidden.dtype)) for name in poolings], 1
    )


def _cls(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    last = (mask * torch.arange(mask.shape[1], device=mask.device).view(1, -1, 1)).argmax(1, True)
    return hidden.gather(1, last.expand(-1, 1, hidden.shape[-1])).squeeze(1)


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask == 0, float("-inf")).amax(1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return (hidden * mask).sum(1) / mask.sum(1)


def _mean_root(hidden: Tensor, mask: Tensor) -> Tensor:
    return (hidden * mask).sum(1) / mask.sum(1).sqrt()


def _weighted(hidden: Tensor, mask: Tensor) -> Tensor:
    """Later tokens, which have seen more, count more."""
    weights = mask * torch.arange(1, hidden.shape[1] + 1, device=hidden.device).view(1, -1, 1)
    return (hidden * weights).sum(1) / weights.sum(1)


_POOL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _cls,
    "lasttoken": _last,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_root,
    "weightedmean": _weighted,
}


def after_pooling(steps: Sequence[Step], size: int) -> tuple[Callable[[Tensor], Tensor], int]:
    """What follows the pooling, and the size of the vectors that come out of it.

    Raises:
        ModelInvalid: The weights of a step do not fit.
    """
    layers: list[Callable[[Tensor], Tensor]] = []
    for step in steps:
        if step.kind == "normalize":
            layers.append(lambda vectors: torch.nn.functional.normalize(vectors, dim=1))
        elif step.kind == "dense":
            layer, size = _dense(step, size)
            layers.append(layer)
        else:
            layers.append(_layer_norm(step, size))

    def run(vectors: Tensor) -> Tensor:
        for layer in layers:
            vectors = layer(vectors)
        return vectors

    return run, size


def _dense(step: Step, size: int) -> tuple[Callable[[Tensor], Tensor], int]:
    weights = _weights(step)
    matrix, bias = weights.get("linear.weight"), weights.get("linear.bias")
    if matrix is None or matrix.dim() != 2 or matrix.shape[1] != size:
        raise _misfit(step)
    activate = getattr(torch.nn, step.activation)()

    def run(vectors: Tensor) -> Tensor:
        activated: Tensor = activate(torch.nn.functional.linear(vectors, matrix, bias))
        return activated

    return run, int(matrix.shape[0])


def _layer_norm(step: Step, size: int) -> Callable[[Tensor], Tensor]:
    weights = _weights(step)
    if any(w.shape != (size,) for w in weights.values()) or "norm.weight" not in weights:
        raise _misfit(step)

    def run(vectors: Tensor) -> Tensor:
        weight, bias = weights["norm.weight"], weights.get("norm.bias")
        return torch.nn.functional.layer_norm(vectors, (size,), weight, bias)

    return run


def _weights(step: Step) -> dict[str, Tensor]:
    assert step.path is not None
    file = step.path / "model.safetensors"
    if not file.is_file():
        raise ModelInvalid(
            f"the module {step.path.name} has no model.safetensors; convert it: "
            "SentenceTransformer(directory).save(directory) writes safetensors",
            reason="a module without safetensors",
        )
    return {name: value.float() for name, value in _load(file).items()}


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(file))
    except Exception as exc:
        # safetensors raises bare exceptions.
        raise ModelInvalid(
            f"the weights of the module {file.parent.name} cannot be read", reason="bad weights"
        ) from exc


def _misfit(step: Step) -> ModelInvalid:
    assert step.path is not None
    name = step.path.name
    return ModelInvalid(
        f"the weights of the module {name} do not fit the model", reason=f"{name} does not fit"
    )
