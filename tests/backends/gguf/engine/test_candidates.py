"""Drawing from a few tokens gives what llama.cpp's samplers give on the whole vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
import numpy as np  # noqa: TID253 - a test of what runs in workers

from hybridd.backends.engine.not_finite import NotFinite
from hybridd.backends.engine.options import GenerationOptions
from hybridd.backends.gguf.engine.tokens.candidates import Drawer, likeliest
from hybridd.backends.gguf.engine.tokens.sampling import PENALTY_WINDOW, Sampler

SIZE = 20_000


class Vocabulary:
    """As much of `gguf.vocabulary` as the samplers ask for."""

    vocab_size = SIZE
    end_tokens = (3, 7)


class Context:
    """Logits that stay as they are unless the sampler leaves its biases in them."""

    def __init__(self, seed: int) -> None:
        self.values = np.random.default_rng(seed).normal(0, 3, SIZE).astype(np.float32)

    def logits(self, _row: int) -> Any:
        return self.values


def whole(sampler: Sampler, logits: Any) -> int:
    """The chain on everything."""
    values = logits.copy()
    sampler._change(values)
    return Drawer().draw(sampler._chain, values, np.arange(SIZE))


OPTIONS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.7, 1.5]),
        "top_k": st.sampled_from([1, 5, 40, 200]),
        "min_p": st.sampled_from([0.0, 0.05]),
        "seed": st.integers(0, 1000),
        "repeat_penalty": st.sampled_from([1.0, 1.3, 0.7]),
        "presence_penalty": st.sampled_from([0.0, 5.0, -5.0]),
        "ignore_eos": st.booleans(),
        "logit_bias": st.sampled_from([{}, {"11": 9.0, "12": -9.0}]),
    }
)


@given(OPTIONS, st.integers(0, 1000), st.lists(st.integers(0, SIZE - 1), max_size=80))
def test_the_draw_is_that_of_the_whole_vocabulary(
    given_options: dict[str, Any], seed: int, prompt: list[int]
) -> None:
    options = GenerationOptions.from_wire(given_options)
    one, other = (Sampler(Vocabulary(), options, prompt) for _ in range(2))  # type: ignore[arg-type]
    context = Context(seed)
    before = context.values.copy()
    for _ in range(5):
        token = one.sample(context, 0)  # type: ignore[arg-type]
        if other._chain is None:
            biased = before.copy()
            other._change(biased)
            assert token == biased.argmax()
        else:
            assert token == whole(other, before)
    assert (context.values == before).all()
    one.close()
    other.close()


@given(st.integers(0, 10_000), st.integers(1, 100 + PENALTY_WINDOW), st.integers(2, SIZE))
def test_the_likeliest_are_all_there(seed: int, count: int, size: int) -> None:
    logits = Context(seed).values[:size]
    found = set(likeliest(logits, count).tolist())
    assert set(np.argsort(-logits)[:count].tolist()) <= found


@pytest.mark.parametrize("count", [40, SIZE])
@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 777, SIZE - 1, slice(None)])
def test_logits_that_are_no_numbers_are_refused(where: Any, number: float, count: int) -> None:
    """Also where there are as many others: the samplers would make arbitrary chances of them."""
    logits = Context(1).values
    logits[where] = number
    with pytest.raises(NotFinite):
        likeliest(logits, count)


@pytest.mark.parametrize("count", [40, SIZE])
def test_tokens_that_never_come_are_no_harm(count: int) -> None:
    logits = Context(1).values
    logits[SIZE // 2 :] = -np.inf
    assert logits.argmax() in likeliest(logits, count)
    logits[:] = -np.inf
    with pytest.raises(NotFinite):
        likeliest(logits, count)
