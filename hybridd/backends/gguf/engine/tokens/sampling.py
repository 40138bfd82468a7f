"""llama.cpp's samplers for one generation, in llama.cpp's own order.

    logit bias → penalties → top-k → typical → top-p → min-p → temperature → draw

`huggingface.sampling` does the same in torch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np  # noqa: TID253 - worker side, where it may be imported

from hybridd.backends.engine.not_finite import NotFinite
from hybridd.backends.engine.options import GenerationOptions
from hybridd.backends.engine.output import logprobs

from ..cells.context import Context
from ..weights.llama import llama
from ..weights.vocabulary import Vocabulary
from .candidates import Drawer, Ids, Logits, every, likeliest

# How far back penalties look, as in llama.cpp; the prompt's end counts.
PENALTY_WINDOW = 64


class Sampler:
    """A chain of samplers; `close` frees it and them.

    Args:
        vocabulary: The model's.
        options: Of the generation.
        prompt: Its tokens, for the penalties.
    """

    def __init__(
        self, vocabulary: Vocabulary, options: GenerationOptions, prompt: Sequence[int]
    ) -> None:
        self._vocabulary = vocabulary
        self._logprobs = options.logprobs
        self._chain: Any = None
        self._seen: deque[int] = deque(maxlen=PENALTY_WINDOW if options.penalizes else 0)
        self._changed, self._biases = _bias(vocabulary, options)
        # A token that was seen may rise or fall: neither keeps another from the first.
        self._first = 1 if options.greedy else options.top_k
        if options.penalizes:
            self._first += PENALTY_WINDOW if self._first else 0
        elif options.greedy:
            return
        self._drawer = Drawer()
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for sampler in _samplers(vocabulary, options):
            llama.llama_sampler_chain_add(self._chain, sampler)
        for token in prompt[-PENALTY_WINDOW:]:
            llama.llama_sampler_accept(self._chain, token)
            self._seen.append(token)

    def sample(self, context: Context, row: int) -> int:
        """Choose the next token from the logits of a row of the last batch.

        Raises:
            NotFinite: The largest is NaN or infinite.
        """
        logits = context.logits(row)
        if not len(self._changed):
            return self._choose(logits)
        plain = self._change(logits)
        token = self._choose(logits)
        logits[self._changed] = plain  # log probabilities are the model's own
        return token

    def _change(self, logits: Logits) -> Logits:
        """Add the biases; returns what the changed ones were."""
        plain, biased = logits[self._changed], len(self._biases)
        if biased:
            logits[self._changed[:biased]] += self._biases
        logits[self._changed[biased:]] = -math.inf
        return plain

    def _choose(self, logits: Logits) -> int:
        if self._chain is None:
            token = int(logits.argmax())
            if not math.isfinite(logits[token]):
                raise NotFinite
            return token
        if self._first:
            ids = likeliest(logits, self._first)
            if self._seen:
                ids = np.union1d(ids, np.fromiter(self._seen, np.intp))
        else:
            ids = every(logits)
        token = self._drawer.draw(self._chain, logits, ids)
        self._seen.append(token)
        return token

    def logprobs(self, context: Context, row: int, token: int) -> dict[str, Any] | None:
        """The entry of the chosen token, with the likeliest ones; None if the request wants none.

        They are the model's own, before any option: what the options make of them is no
        probability that could be compared.
        """
        if not self._logprobs:
            return None
        values = context.logits(row).astype(np.float64)
        values -= values.max()
        values -= math.log(np.exp(values).sum())
        count = min(self._logprobs, len(values))
        best = np.argpartition(-values, count - 1)[:count]
        best = best[np.lexsort((best, -values[best]))]
        top = [(int(i), float(values[i])) for i in best]
        return logprobs.entry(self._vocabulary, token, float(values[token]), top)

    def close(self) -> None:
        """Free the chain."""
        if self._chain is not None:
            llama.llama_sampler_free(self._chain)
            self._chain = None


def _samplers(vocabulary: Vocabulary, options: GenerationOptions) -> list[Any]:
    chosen: list[Any] = []
    if options.penalizes:
        penalties = (options.repeat_penalty, options.frequency_penalty, options.presence_penalty)
        size = vocabulary.vocab_size
        chosen.append(llama.llama_sampler_init_penalties(size, PENALTY_WINDOW, *penalties))
    if options.greedy:
        return [*chosen, llama.llama_sampler_init_greedy()]
    if options.top_k > 0:
        chosen.append(llama.llama_sampler_init_top_k(options.top_k))
    if options.typical_p < 1:
        chosen.append(llama.llama_sampler_init_typical(options.typical_p, 1))
    if options.top_p < 1:
        chosen.append(llama.llama_sampler_init_top_p(options.top_p, 1))
    if options.min_p > 0:
        chosen.append(llama.llama_sampler_init_min_p(options.min_p, 1))
    chosen.append(llama.llama_sampler_init_temp(options.temperature))
    return [*chosen, llama.llama_sampler_init_dist(options.seed)]


def _bias(vocabulary: Vocabulary, options: GenerationOptions) -> tuple[Ids, Logits]:
    """Tokens whose logits change, and the biases of the first of them; the others never come."""
    never = vocabulary.end_tokens if options.ignore_eos else []
    known = range(vocabulary.vocab_size)
    bias = {t: b for t, b in options.logit_bias.items() if t in known and t not in never}
    return np.array([*bias, *never], np.intp), np.array([*bias.values()], np.float32)
