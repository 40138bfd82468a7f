"""The options of one generation, as every engine reads them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

# What the samplers of llama.cpp take; a larger one from a client is folded.
_SEED_RANGE = 2**32 - 1  # 2**32 - 1 itself means "random" to llama.cpp
# Logits over a smaller temperature may be NaN in single precision; of two tokens that differ
# at all the likelier one is certain long before.
_COLDEST = 1e-20


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """docs/protocol.md's `options`; the defaults are what applies when none is set.

    Attributes:
        max_tokens: None is what remains of the context, 0 processes the prompt only.
        temperature: 0 takes the likeliest token.
        adapters: Names and scales of those to be used.
        logprobs: How many alternatives to report beside each token; 0 reports nothing.
        context_shift: Where the context is full, go on without a part of what came before.
    """

    max_tokens: int | None = None
    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int = 0
    ignore_eos: bool = False
    adapters: tuple[tuple[str, float], ...] = ()
    context_shift: bool = False

    @classmethod
    def from_wire(cls, options: Mapping[str, Any] | None) -> Self:
        """Read a request's options, which were range-checked by the daemon; None is absent.

        Without a seed each request gets a random one, so that two never draw alike.
        """
        given = {k: v for k, v in (options or {}).items() if v is not None and k in _NAMES}
        stop = given.get("stop", ())
        given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        bias = given.get("logit_bias", {})
        given["logit_bias"] = {int(token): float(value) for token, value in bias.items()}
        adapters = given.get("adapters", ())
        given["adapters"] = tuple((one["name"], float(one.get("scale", 1))) for one in adapters)
        seed = given.get("seed")
        given["seed"] = secrets.randbelow(_SEED_RANGE) if seed is None else seed % _SEED_RANGE
        return cls(**given)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken without a draw."""
        return self.temperature < _COLDEST

    @property
    def penalizes(self) -> bool:
        """Whether tokens that came before count against themselves."""
        penalties = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
        return penalties != (1.0, 0.0, 0.0)


_NAMES = frozenset(GenerationOptions.__slots__)
