"""Sampling in torch against llama.cpp's own samplers, on the same logits."""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from hybridd.backends.engine.options import GenerationOptions
from hybridd.backends.gguf.engine.tokens import sampling as native
from hybridd.backends.gguf.engine.weights.llama import llama
from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.tokens.sampling import (
    NOT_FINITE,
    Sampler,
    apply_biases,
    apply_penalties,
    candidates,
    choose,
    likeliest,
    top,
)

SIZE = 60
# Apart from each other, so that a filter's border never lies within rounding.
LOGITS = st.permutations([n * 0.37 - 9.0 for n in range(SIZE)])
OPTIONS = st.fixed_dictionaries(
    {
        "top_k": st.sampled_from([0, 1, 5, 40, 1000]),
        "typical_p": st.sampled_from([1.0, 0.95, 0.5, 0.11]),
        "top_p": st.sampled_from([1.0, 0.93, 0.5, 0.07]),
        "min_p": st.sampled_from([0.0, 0.013, 0.3, 1.0]),
    }
)
PENALTIES = st.fixed_dictionaries(
    {
        "repeat_penalty": st.sampled_from([1.0, 1.3, 0.8]),
        "frequency_penalty": st.sampled_from([0.0, 0.7, -0.5]),
        "presence_penalty": st.sampled_from([0.0, 0.4, -0.2]),
    }
)


class Vocabulary:
    """As much of a vocabulary as the samplers ask for."""

    vocab_size = SIZE
    end_tokens = (3, 7)

    def piece(self, token: int) -> bytes:
        return b"" if token == 8 else b"<%d>" % token

    def name(self, token: int) -> str:
        return f"name {token}"


def chain(samplers: list[Any], logits: list[float], seen: list[int]) -> dict[int, float]:
    """What llama.cpp's samplers leave of the logits, by token."""
    data = (llama.llama_token_data * SIZE)()
    for i, value in enumerate(logits):
        data[i].id, data[i].logit, data[i].p = i, value, 0.0
    array = llama.llama_token_data_array(data, SIZE, -1, False)
    made = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for sampler in samplers:
        llama.llama_sampler_chain_add(made, sampler)
    for token in seen:
        llama.llama_sampler_accept(made, token)
    llama.llama_sampler_apply(made, ctypes.byref(array))
    left = {array.data[i].id: array.data[i].logit for i in range(array.size)}
    llama.llama_sampler_free(made)
    return left


def filters(options: GenerationOptions) -> list[Any]:
    """The native chain without its draw and its temperature."""
    return native._samplers(Vocabulary(), options)[:-2]  # type: ignore[arg-type]


@given(LOGITS, OPTIONS)
def test_filters_leave_the_same_tokens(logits: list[float], given_: dict[str, Any]) -> None:
    options = GenerationOptions(**given_, temperature=1.0)
    values, ids = candidates(torch.tensor(logits), options)
    expected = chain(filters(options), logits, [])
    assert dict(zip(ids.tolist(), values.tolist(), strict=True)) == pytest.approx(
        expected, abs=1e-5
    )
    assert values.tolist() == sorted(values.tolist(), reverse=True)


@given(LOGITS, PENALTIES, st.lists(st.integers(0, SIZE - 1), max_size=100))
def test_penalties_are_the_same(
    logits: list[float], given_: dict[str, Any], seen: list[int]
) -> None:
    options = GenerationOptions(**given_, top_k=0, top_p=1, min_p=0)
    window = seen[-native.PENALTY_WINDOW :]
    expected = chain(filters(options), logits, seen)
    got = apply_penalties(torch.tensor(logits), window, options).tolist()
    assert got == pytest.approx([expected[i] for i in range(SIZE)], abs=1e-4)


def test_biases_are_the_same() -> None:
    logits = [0.1 * n for n in range(SIZE)]
    options = GenerationOptions(
        logit_bias={5: 2.5, 6: -math.inf, 999: 1}, ignore_eos=True, top_k=0, top_p=1, min_p=0
    )
    native_sampler = native.Sampler(Vocabulary(), options, [])  # type: ignore[arg-type]
    expected = torch.tensor(logits)
    native_sampler._change(expected.numpy())
    native_sampler.close()
    ends = dict.fromkeys(Vocabulary().end_tokens, -math.inf)
    bias = {**options.logit_bias, **ends}
    other, got = apply_biases(torch.tensor([logits, logits]), [{}, bias]).tolist()
    assert other == pytest.approx(logits)
    assert got == pytest.approx(expected.tolist())
    assert got[3] == got[7] == got[6] == -math.inf


def sampler(**options: Any) -> Sampler:
    return Sampler(GenerationOptions.from_wire(options), [1, 2, 3], [7], Vocabulary())


def test_greedy_takes_the_likeliest_and_ignore_eos_never_an_end() -> None:
    logits = torch.zeros(SIZE)
    logits[7], logits[9] = 5.0, 4.0
    assert sampler(temperature=0).sample(logits) == 7
    assert sampler(temperature=0, ignore_eos=True).sample(logits) == 9
    assert logits[7] == 5.0


def test_rows_are_adjusted_each_by_its_own_options() -> None:
    """Together as alone, in 16 bits too, and what came in stays as it was."""
    rows = torch.randn(5, SIZE).bfloat16()
    before = rows.clone()
    options: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 0, "ignore_eos": True, "logit_bias": {"4": 9.0, "999": 99.0}},
        {"temperature": 0, "repeat_penalty": 1.9, "presence_penalty": 1.5},
        {"temperature": 0.9, "seed": 3, "logit_bias": {"1": -5.0}, "frequency_penalty": 1.0},
        {"temperature": 0.9, "seed": 3, "ignore_eos": True},
    ]
    together = choose([sampler(**one) for one in options], rows)
    alone = [sampler(**one).sample(row) for one, row in zip(options, rows, strict=True)]
    assert together == alone
    assert together[1] == 4
    assert torch.equal(rows, before)


def test_draws_have_the_probabilities_that_they_should() -> None:
    logits = torch.full((SIZE,), -math.inf)
    logits[10], logits[20] = math.log(0.75), math.log(0.25)
    drawn = sampler(temperature=1, top_p=1, min_p=0, seed=1)
    counts = Counter(drawn.sample(logits) for _ in range(4000))
    assert set(counts) == {10, 20}
    assert counts[10] / 4000 == pytest.approx(0.75, abs=0.03)
    hot = sampler(temperature=100, top_p=1, min_p=0, seed=1)
    counts = Counter(hot.sample(logits) for _ in range(4000))
    assert counts[10] / 4000 == pytest.approx(0.5, abs=0.04)


def test_a_seed_repeats() -> None:
    logits = torch.zeros(SIZE)

    def drawn(seed: int | None) -> list[int]:
        one = sampler(temperature=1, top_k=0, top_p=1, min_p=0, seed=seed)
        return [one.sample(logits) for _ in range(20)]

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)
    assert drawn(None) != drawn(None)


def test_log_probabilities_are_the_models_own() -> None:
    logits = torch.zeros(SIZE)
    logits[4] = 2.0
    one = sampler(temperature=0, logprobs=2, logit_bias={"8": 50})
    token = one.sample(logits)
    assert token == 8
    found = one.logprobs(logits, token)
    assert found is not None
    total = math.log(SIZE - 1 + math.exp(2.0))
    tops = found.pop("top_logprobs")
    named = {"id": 8, "token": "name 8", "bytes": [*b"name 8"]}
    assert found == {**named, "logprob": pytest.approx(-total)}
    text = {"id": 4, "token": "<4>", "bytes": [*b"<4>"]}
    assert tops[0] == {**text, "logprob": pytest.approx(2.0 - total)}
    assert len(tops) == 2
    assert sampler(temperature=0).logprobs(logits, token) is None


def test_options_from_the_wire() -> None:
    options = GenerationOptions.from_wire(
        {"max_tokens": None, "stop": "x", "logit_bias": {"5": 1}, "seed": 2**40, "unknown": 1}
    )
    assert options.max_tokens is None
    assert options.stop == ("x",)
    assert options.logit_bias == {5: 1.0}
    assert 0 <= options.seed < 2**32 - 1
    assert GenerationOptions.from_wire(None).temperature == 0.8


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5, 30]), st.integers(1, 3))
def test_large_vocabularies_are_searched_by_blocks(seed: int, count: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Coarse values, so that many are equal.
    logits = torch.randint(0, 500, (rows, 32_000), generator=generator) / 8.0
    values, ids = top(logits, count)
    assert values.tolist() == torch.topk(logits, count).values.tolist()
    assert logits.gather(1, ids).tolist() == values.tolist()
    assert all(len(set(row)) == count for row in ids.tolist())
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert likeliest(logits) == expected


# Few values, so that many are equal.
LOGITS = st.lists(
    st.sampled_from([0.0, 1.0, 1.5, 2.0, -math.inf, math.inf, math.nan]),
    min_size=SIZE,
    max_size=SIZE,
)
BIASES = st.dictionaries(
    st.integers(0, SIZE + 1), st.sampled_from([0.0, -0.5, -1.0, -math.inf, 0.5]), max_size=6
)


@given(LOGITS, st.lists(BIASES, min_size=1, max_size=4))
def test_the_likeliest_token_is_that_of_adjusted_logits(
    logits: list[float], biases: list[dict[int, float]]
) -> None:
    """Also where nothing had to be adjusted to find it."""
    samplers = [sampler(temperature=0) for _ in biases]
    for one, bias in zip(samplers, biases, strict=True):
        one.bias = bias
        one.plain, one.only_bars = not bias, all(value <= 0 for value in bias.values())
    rows = torch.tensor([logits] * len(biases))
    adjusted = apply_biases(rows, biases)
    expected = [int(row.argmax()) if bool(row.max().isfinite()) else NOT_FINITE for row in adjusted]
    assert choose(samplers, rows) == expected


def test_what_only_bars_is_told_by_the_options() -> None:
    for options, bars in (
        ({"temperature": 0}, True),
        ({"temperature": 0, "ignore_eos": True, "logit_bias": {"3": -5.0}}, True),
        ({"temperature": 0, "logit_bias": {"3": 0.5}}, False),
        ({"temperature": 0, "repeat_penalty": 1.1}, False),
        ({"temperature": 0.5}, False),
    ):
        assert sampler(**options).only_bars is bars


def test_rows_are_chosen_from_by_their_own_options() -> None:
    logits = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(1))
    options: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 1, "seed": 3, "top_k": 5},
        {"temperature": 0, "logit_bias": {"9": 100}},
        {"temperature": 1, "seed": 4, "top_k": 0, "top_p": 1, "min_p": 0},
    ]
    alone = [sampler(**one).sample(row) for one, row in zip(options, logits, strict=True)]
    assert choose([sampler(**one) for one in options], logits) == alone
    assert alone[0] == int(logits[0].argmax())
    assert alone[2] == 9
