"""Sampling in torch, in llama.cpp's order and with its meaning of every option.

    logit bias → penalties → top-k → typical → top-p → min-p → temperature → draw

Each filter looks at what the one before left, with the probabilities of what is left: that is how
llama.cpp chains its samplers (`gguf.sampling`), so that an option means the same in both formats.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.backends.engine.options import GenerationOptions
from hybridd.backends.engine.output.logprobs import Pieces, entry

from ..compat.imports import Tensor, torch

# How far back penalties look, as in llama.cpp; the prompt's end counts.
PENALTY_WINDOW = 64
# Vocabularies from this size on are searched by blocks.
_LARGE = 8192
NOT_FINITE = -1  # instead of a token
_BLOCK = 64  # divides the usual sizes: 32,000, 128,256, 151,936, 256,000


class Sampler:
    """Chooses the tokens of one generation.

    Args:
        options: Of the generation.
        prompt: Its tokens, for the penalties.
        end_tokens: Never chosen under `ignore_eos`.
        vocabulary: For the entries of `logprobs`.

    Attributes:
        bias: What is added to the logits of tokens.
        plain: Whether it takes the logits as they are.
        only_bars: Whether it takes the likeliest token but for some that are made less likely.
    """

    def __init__(
        self,
        options: GenerationOptions,
        prompt: Sequence[int],
        end_tokens: Sequence[int],
        vocabulary: Pieces,
    ) -> None:
        self._options = options
        self._window = deque(prompt[-PENALTY_WINDOW:], maxlen=PENALTY_WINDOW)
        self._random = random.Random(options.seed)
        self._vocabulary = vocabulary
        bias: dict[int, float] = dict(options.logit_bias)
        if options.ignore_eos:
            bias.update(dict.fromkeys(end_tokens, -math.inf))
        self.bias = bias
        self.plain = not bias and _without_penalties(options)
        lowers = all(value <= 0 for value in bias.values())
        self.only_bars = options.greedy and lowers and _without_penalties(options)

    @property
    def greedy(self) -> bool:
        """Whether it takes the likeliest token."""
        return self._options.greedy

    @property
    def top_k(self) -> int:
        """How many of the likeliest tokens it looks at; 0 is all."""
        return self._options.top_k

    def penalized(self, logits: Tensor) -> Tensor:
        """The logits of one position with the penalties; what came in is left alone.

        Args:
            logits: `(vocabulary,)`.
        """
        return apply_penalties(logits, self._window, self._options)

    def draw(self, values: Tensor, ids: Tensor) -> int:
        """Draw from the likeliest adjusted logits, in descending order; see `choose`."""
        values, ids = filtered(values, ids, self._options)
        probabilities = torch.softmax(values.double() / self._options.temperature, dim=-1)
        sums = torch.cumsum(probabilities, dim=-1)
        if not math.isfinite(total := float(sums[-1])):
            return NOT_FINITE
        point = self._random.random() * total
        index = int(torch.searchsorted(sums, point, right=True))
        return int(ids[min(index, len(ids) - 1)])

    def take(self, token: int) -> None:
        """That token was chosen; penalties count it from now on."""
        self._window.append(token)

    def sample(self, logits: Tensor) -> int:
        """Choose from the logits of one position, a vector over the vocabulary; see `choose`."""
        return choose([self], logits[None])[0]

    def logprobs(self, logits: Tensor, token: int) -> dict[str, Any] | None:
        """The chosen token's log probability and the likeliest ones; None if not asked for.

        They are the model's own, before any option.
        """
        count = min(self._options.logprobs, logits.shape[-1])
        if not count:
            return None
        values = torch.log_softmax(logits.double(), dim=-1)
        best = torch.topk(values, count)
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return entry(self._vocabulary, token, float(values[token]), top)


def choose(samplers: Sequence[Sampler], logits: Tensor) -> list[int]:
    """Each sampler's token from its row of the logits, `(rows, vocabulary)`.

    `NOT_FINITE` where a row holds no numbers that a token could be chosen by.
    """
    chosen = _at_once(samplers, logits)
    left = [i for i in range(len(samplers)) if i not in chosen]
    if left:
        tokens = _adjusting([samplers[i] for i in left], _rows(logits, left))
        chosen.update(zip(left, tokens, strict=True))
    for i, token in chosen.items():
        if token != NOT_FINITE:
            samplers[i].take(token)
    return [chosen[i] for i in range(len(samplers))]


def _at_once(samplers: Sequence[Sampler], logits: Tensor) -> dict[int, int]:
    """The tokens of those whose likeliest one is not among what they make less likely."""
    barring = [i for i, sampler in enumerate(samplers) if sampler.only_bars]
    if not barring:
        return {}
    tokens = zip(barring, _finite(_rows(logits, barring)), strict=True)
    return {i: token for i, token in tokens if token not in samplers[i].bias}


def _finite(logits: Tensor) -> list[int]:
    """`likeliest`, `NOT_FINITE` where that is no number."""
    tokens = likeliest(logits)
    chosen = logits[range(len(tokens)), tokens].isfinite().tolist()
    return [token if fine else NOT_FINITE for token, fine in zip(tokens, chosen, strict=True)]


def _adjusting(samplers: Sequence[Sampler], logits: Tensor) -> list[int]:
    """Each one's token from its row with its biases and penalties."""
    adjusted = _adjusted(samplers, logits)
    tokens = [0] * len(samplers)
    greedy = [i for i, sampler in enumerate(samplers) if sampler.greedy]
    if greedy:
        for i, token in zip(greedy, _finite(_rows(adjusted, greedy)), strict=True):
            tokens[i] = token
    by_count: dict[int, list[int]] = {}
    for i, sampler in enumerate(samplers):
        if not sampler.greedy:
            count = sampler.top_k if 0 < sampler.top_k < logits.shape[-1] else logits.shape[-1]
            by_count.setdefault(count, []).append(i)
    for count, members in by_count.items():
        values, ids = top(_rows(adjusted, members), count)
        for i, value, id_ in zip(members, values.float(), ids, strict=True):
            tokens[i] = samplers[i].draw(value, id_)
    return tokens


def _adjusted(samplers: Sequence[Sampler], logits: Tensor) -> Tensor:
    """The logits with each row's biases and penalties; what came in is left alone."""
    if all(sampler.plain for sampler in samplers):
        return logits
    adjusted = apply_biases(logits, [sampler.bias for sampler in samplers])
    for i, sampler in enumerate(samplers):
        if (changed := sampler.penalized(row := adjusted[i])) is not row:
            adjusted[i] = changed
    return adjusted


def _rows(logits: Tensor, chosen: Sequence[int]) -> Tensor:
    return logits if len(chosen) == len(logits) else logits[list(chosen)]


def likeliest(logits: Tensor) -> list[int]:
    """The id of each row's largest logit; of equal ones the smallest id."""
    size = logits.shape[-1] // _BLOCK * _BLOCK
    if logits.shape[-1] != size or size < _LARGE:
        return [int(token) for token in logits.argmax(dim=-1).tolist()]
    # torch looks for an index at a fraction of the speed at which it looks for a maximum.
    blocks = logits.view(len(logits), -1, _BLOCK)  # (rows, blocks, in a block)
    best = blocks.amax(dim=-1).argmax(dim=-1)
    inside = blocks[torch.arange(len(best), device=best.device), best].argmax(dim=-1)
    return [int(token) for token in (best * _BLOCK + inside).tolist()]


def top(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest logits of each row and their ids, in descending order."""
    size = logits.shape[-1] // _BLOCK * _BLOCK
    if logits.shape[-1] != size or size < max(_LARGE, 4 * count * _BLOCK):
        best = torch.topk(logits, count)
        return best.values, best.indices
    # The largest ones are in the blocks with the largest maxima; only those are sorted.
    blocks = logits.view(len(logits), -1, _BLOCK)  # (rows, blocks, in a block)
    chosen = torch.topk(blocks.amax(dim=-1), count).indices
    ids = chosen[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=logits.device)
    ids = ids.flatten(1)
    best = torch.topk(logits.gather(1, ids), count)
    return best.values, ids.gather(1, best.indices)


def _without_penalties(options: GenerationOptions) -> bool:
    penalties = (options.repeat_penalty, options.frequency_penalty, options.presence_penalty)
    return penalties == (1.0, 0.0, 0.0)


def apply_biases(logits: Tensor, biases: Sequence[Mapping[int, float]]) -> Tensor:
    """Logits, `(rows, vocabulary)`, with the biases of each row's tokens added, in 32 bits.

    Tokens beyond the vocabulary have none.
    """
    size = logits.shape[-1]
    added = [
        (row, token, value)
        for row, bias in enumerate(biases)
        for token, value in bias.items()
        if 0 <= token < size
    ]
    biased = logits.to(torch.float32, copy=True)
    if added:
        rows, tokens, values = zip(*added, strict=True)
        biased[list(rows), list(tokens)] += torch.tensor(values, device=logits.device)
    return biased


def apply_penalties(logits: Tensor, window: Sequence[int], options: GenerationOptions) -> Tensor:
    """The logits with the penalties on every token of the window.

    Repeating makes a logit less likely whatever its sign: a negative one is multiplied. Frequency
    counts each time, presence counts once.
    """
    repeat, frequency = options.repeat_penalty, options.frequency_penalty
    presence = options.presence_penalty
    if not window or _without_penalties(options):
        return logits
    counts = Counter(window)
    ids = list(counts)
    times = torch.tensor([float(counts[i]) for i in ids], device=logits.device)
    logits = logits.clone()
    seen = logits[ids]
    seen = torch.where(seen <= 0, seen * repeat, seen / repeat)
    logits[ids] = seen - times * frequency - presence
    return logits


def candidates(logits: Tensor, options: GenerationOptions) -> tuple[Tensor, Tensor]:
    """The logits and ids of one position that all filters leave, the likeliest first."""
    size = logits.shape[-1]
    values, ids = top(logits[None], options.top_k if 0 < options.top_k < size else size)
    return filtered(values[0], ids[0], options)


def filtered(values: Tensor, ids: Tensor, options: GenerationOptions) -> tuple[Tensor, Tensor]:
    """What the filters behind top-k leave of logits in descending order; at least one."""
    if options.typical_p < 1:
        kept = typical(values, options.typical_p)
        values, ids = values[kept], ids[kept]
    if options.top_p < 1:
        count = top_p(values, options.top_p)
        values, ids = values[:count], ids[:count]
    if options.min_p > 0:
        count = min_p(values, options.min_p)
        values, ids = values[:count], ids[:count]
    return values, ids


def typical(values: Tensor, p: float) -> Tensor:
    """Indices of the tokens whose surprise is nearest to the expected one, up to `p` together.

    Locally typical sampling, Meister et al. 2022; the indices ascend.
    """
    logs = torch.log_softmax(values.double(), dim=-1)
    probabilities = logs.exp()
    # Where a probability is zero its logarithm is -inf, and contributes nothing.
    entropy = -(probabilities * torch.where(probabilities > 0, logs, 0.0)).sum()
    order = torch.argsort((-logs - entropy).abs(), stable=True)
    count = _until(torch.cumsum(probabilities[order], dim=-1) > p)
    return torch.sort(order[:count]).values


def top_p(values: Tensor, p: float) -> int:
    """How many of the likeliest tokens it takes to have `p` together."""
    sums = torch.cumsum(torch.softmax(values.double(), dim=-1), dim=-1)
    return _until(sums >= p)


def min_p(values: Tensor, p: float) -> int:
    """How many tokens are at least `p` times as likely as the likeliest one."""
    return max(1, int((values >= values[0] + math.log(p)).sum()))


def _until(reached: Tensor) -> int:
    """How many elements to keep so that the first true one is the last kept."""
    indices = torch.nonzero(reached)
    return int(indices[0]) + 1 if len(indices) else int(reached.shape[-1])
