"""Attention of many rows in one forward pass, over `kv_cache`'s tensors, without padding.

The tokens of all rows lie behind each other in one sequence `[1, tokens]`: to everything but the
attention they are just tokens. transformers lets a function of ours be the attention of a model
(`compat.attention_hook`); with such a one it makes no masks. Rows that generate attend together,
one call for neighbouring slots; each chunk of a prompt attends by itself.

Shapes: T is the tokens of the pass, H the heads of keys and values, Q those of queries (a multiple
of H), D the size of a head's vector, S the slots and C the cells of the KV cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..compat import attention_hook
from ..compat.cache import PassCache
from ..compat.imports import Tensor, torch
from .kv_cache import KVCache, Row

NAME = "hybridd_rows"

# What would change the scores in a way that is not known here.
_SCORES = ("position_bias", "head_mask", "alibi", "block_mask", "sinks")
# Neighbouring rows attend in one call as long as that computes at most so many times what they
# need: the shorter ones are masked to the longest.
_MAX_WASTE = 1.5
# Rows that generate look at whole lots of cells, the last ones masked: a processor adds up numbers
# by lots, and so what a row gets does not depend on how long its neighbours are.
_CELLS = 16


class Work(NamedTuple):
    """Tokens to compute for one row, behind those that it has."""

    row: Row
    tokens: Sequence[int]


class _Group(NamedTuple):
    """Rows in neighbouring slots that generate one token each.

    `first` and `last` are of the tokens of the pass, `lengths` include the new ones.
    """

    first: int
    last: int
    slot: int
    lengths: list[int]


class _Chunk(NamedTuple):
    """Tokens of one prompt: `first` to `last` of the pass, at the row's cells from `start` on."""

    first: int
    last: int
    slot: int
    start: int


class _Sight(NamedTuple):
    """The cells that a group or a chunk looks at in a layer, and what is added to their scores."""

    slots: slice
    cells: slice
    mask: Tensor | None

    def of(self, stored: Tensor) -> Tensor:
        """These of a layer's keys or values."""
        return stored[self.slots, :, self.cells]  # (S, H, C, D) -> (rows, H, cells, D)


class RowsPass(PassCache):
    """What one forward pass does with the cache; to transformers it is the cache.

    Args:
        cache: Of all rows; has the cells that are needed.
        works: One for each row; generating rows first, those by slot.
        windows: Of each layer, how far back it looks; None is everything.

    Attributes:
        positions: Of the tokens, `(T,)`.
        attended: How many layers computed their attention here.
    """

    def __init__(
        self, cache: KVCache, works: Sequence[Work], windows: Sequence[int | None], device: str
    ) -> None:
        super().__init__(len(windows))
        self._cache = cache
        self._windows = windows
        self.attended = 0
        self._layer: int | None = None
        self._sights: dict[tuple[int, int | None, torch.device], _Sight] = {}
        slots: list[int] = []
        numbers: list[int] = []
        positions: list[int] = []
        for row, tokens in works:
            slots += [row.slot] * len(tokens)
            own = range(row.length, row.length + len(tokens))
            numbers += own
            positions += range(own.start + row.shift, own.stop + row.shift)
        cells = torch.tensor(numbers, device=device)  # (T,)
        same = positions == numbers
        self.positions = cells if same else torch.tensor(positions, device=device)
        self._where = {cells.device: (torch.tensor(slots, device=device), cells)}
        # One row's cells are a slice, which is written at a fraction of the cost.
        one = slice(numbers[0], numbers[-1] + 1)
        self._alone = (slots[0], one) if len(works) == 1 else None
        self._groups, self._chunks = _parts(works)

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values, `(1, H, T, D)`, where they belong."""
        self._layer = layer_idx
        self._write(self._cache.keys[layer_idx], keys[0].transpose(0, 1))
        self._write(self._cache.values[layer_idx], values[0].transpose(0, 1))
        return keys, values

    def _write(self, stored: Tensor, new: Tensor) -> None:
        """Put `(T, H, D)` into their cells."""
        if self._alone is not None:
            slot, own = self._alone
            stored[slot, :, own] = new.transpose(0, 1)
        else:
            slots, cells = self._slots_and_cells(new.device)
            stored[slots, :, cells] = new

    def _slots_and_cells(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Those of the tokens, `(T,)` each, on a layer's device."""
        if device not in self._where:
            first = next(iter(self._where.values()))
            self._where[device] = (first[0].to(device), first[1].to(device))
        return self._where[device]

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """The output of the layer that was updated last.

        Args:
            query: `(1, Q, T, D)`.
            keys: The new ones, `(1, H, T, D)`.
            values: The same.
            scaling: Of the scores; None is the usual one.
            softcap: What scores are bent to stay below.
            sinks: A score of each head for looking at nothing, `(Q,)`.

        Returns:
            `(1, T, Q, D)`.
        """
        layer, self._layer = self._layer, None
        assert layer is not None
        self.attended += 1
        window = self._windows[layer]
        stored = self._cache.keys[layer], self._cache.values[layer]  # (S, H, C, D)
        score = _Score(scaling, softcap, sinks)
        # Each part's (tokens, Q, D), in the order of the tokens.
        parts = [self._attend_group(group, query, *stored, window, score) for group in self._groups]
        for chunk in self._chunks:
            if chunk.start == 0 and (window is None or chunk.last - chunk.first <= window):
                q, k, v = (part[:, :, chunk.first : chunk.last] for part in (query, keys, values))
                parts.append(score(q, k, v, None, causal=True)[0].transpose(0, 1))
            else:
                parts.append(self._attend_chunk(chunk, query, *stored, window, score))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0)

    def _attend_group(
        self,
        group: _Group,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        window: int | None,
        score: _Score,
    ) -> Tensor:
        sight = self._sight(group, window, query)
        rows = len(group.lengths)
        own = query[0, :, group.first : group.last].transpose(0, 1)  # (rows, Q, D)
        # The heads of queries that share one of keys are as so many tokens of it.
        own = own.reshape(rows, keys.shape[1], -1, query.shape[-1])  # (rows, H, Q / H, D)
        output = score(own, sight.of(keys), sight.of(values), sight.mask)
        return output.reshape(rows, -1, values.shape[-1])  # (rows, Q, D)

    def _attend_chunk(
        self,
        chunk: _Chunk,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        window: int | None,
        score: _Score,
    ) -> Tensor:
        sight = self._sight(chunk, window, query)
        own = query[:, :, chunk.first : chunk.last]  # (1, Q, tokens, D)
        return score(own, sight.of(keys), sight.of(values), sight.mask)[0].transpose(0, 1)

    def _sight(self, part: _Group | _Chunk, window: int | None, query: Tensor) -> _Sight:
        """What the part looks at; the first layer that needs it makes it."""
        key = (id(part), window, query.device)
        if key not in self._sights:
            if isinstance(part, _Chunk):
                self._sights[key] = _chunk_sight(part, window, query)
            else:
                self._sights[key] = _group_sight(part, window, self._cache.cells, query)
        return self._sights[key]


def _parts(works: Sequence[Work]) -> tuple[list[_Group], list[_Chunk]]:
    """How the tokens of a pass attend: groups of generating rows, and chunks."""
    groups: list[_Group] = []
    chunks: list[_Chunk] = []
    first = 0
    for row, tokens in works:
        last = first + len(tokens)
        length = row.length + 1
        group = groups[-1] if groups else None
        if len(tokens) > 1 or row.length == 0:
            chunks.append(_Chunk(first, last, row.slot, row.length))
        elif group is not None and _fits(group, row.slot, length):
            groups[-1] = group._replace(last=last, lengths=[*group.lengths, length])
        else:
            groups.append(_Group(first, last, row.slot, [length]))
        first = last
    return groups, chunks


def _fits(group: _Group, slot: int, length: int) -> bool:
    """Whether it is worth it that a row attends together with those before it."""
    lengths = [*group.lengths, length]
    if slot != group.slot + len(group.lengths):
        return False
    return max(lengths) * len(lengths) <= max(_MAX_WASTE * sum(lengths), 256 * len(lengths))


def _group_sight(group: _Group, window: int | None, cells: int, query: Tensor) -> _Sight:
    shortest, longest = min(group.lengths), max(group.lengths)
    first = 0 if window is None else max(0, shortest - window)
    begin = first // _CELLS * _CELLS
    end = min(cells, -(-longest // _CELLS) * _CELLS)
    slots = slice(group.slot, group.slot + len(group.lengths))
    if (begin, end) == (first, shortest):
        return _Sight(slots, slice(begin, end), None)
    lengths = torch.tensor(group.lengths, device=query.device)[:, None]  # (rows, 1)
    numbers = torch.arange(begin, end, device=query.device)[None]  # (1, cells)
    hidden = numbers >= lengths
    if window is not None:
        hidden |= numbers < lengths - window
    return _Sight(slots, slice(begin, end), _additive(hidden, query)[:, None, None])


def _chunk_sight(chunk: _Chunk, window: int | None, query: Tensor) -> _Sight:
    end = chunk.start + chunk.last - chunk.first
    begin = 0 if window is None else max(0, chunk.start + 1 - window)
    mask = _chunk_mask(chunk.start, end, begin, window, query)
    return _Sight(slice(chunk.slot, chunk.slot + 1), slice(begin, end), mask)


def _chunk_mask(start: int, end: int, begin: int, window: int | None, query: Tensor) -> Tensor:
    """`(1, 1, tokens, cells)`: zero where a token from `start` on sees a cell from `begin` on."""
    tokens = torch.arange(start, end, device=query.device)[:, None]
    cells = torch.arange(begin, end, device=query.device)[None]
    hidden = cells > tokens
    if window is not None:
        hidden |= cells <= tokens - window
    return _additive(hidden, query)[None, None]


def _additive(hidden: Tensor, query: Tensor) -> Tensor:
    mask = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
    return mask.masked_fill_(hidden, float("-inf"))


class _Score(NamedTuple):
    """How a layer turns queries and keys into weights: scale, soft cap, sinks of the heads."""

    scaling: float | None
    softcap: float | None
    sinks: Tensor | None

    def __call__(
        self,
        query: Tensor,  # (rows, Q or H, tokens, D)
        keys: Tensor,  # (rows, H, cells, D)
        values: Tensor,
        mask: Tensor | None,
        *,
        causal: bool = False,
    ) -> Tensor:
        """As `query`, with the values' D."""
        heads = query.shape[1]
        if heads != keys.shape[1]:
            # Several heads of queries to one of keys.
            keys, values = (_repeated(part, heads // part.shape[1]) for part in (keys, values))
        if self.softcap is None and self.sinks is None:
            return torch.nn.functional.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, is_causal=causal, scale=self.scaling
            )
        return self._by_hand(query, keys, values, mask, causal)

    def _by_hand(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        scaling = query.shape[-1] ** -0.5 if self.scaling is None else self.scaling
        scores = torch.matmul(query, keys.transpose(2, 3)) * scaling  # (rows, heads, tokens, cells)
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if causal:
            mask = _chunk_mask(0, keys.shape[2], 0, None, query)
        if mask is not None:
            scores = scores + mask
        if self.sinks is not None:
            # One more weight for each head, for a cell that holds nothing.
            sinks = self.sinks.reshape(1, query.shape[1], -1, 1).to(scores.dtype)
            sinks = sinks.expand(scores.shape[0], -1, scores.shape[2], -1)
            scores = torch.cat([scores, sinks], dim=-1)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
        return torch.matmul(weights[..., : keys.shape[2]], values)


def _repeated(part: Tensor, times: int) -> Tensor:
    """`(rows, H, cells, D)` with each head as often: `(rows, H * times, cells, D)`."""
    rows, heads, cells, dim = part.shape
    wide = part[:, :, None].expand(rows, heads, times, cells, dim)
    return wide.reshape(rows, heads * times, cells, dim)


# The pass that is under way. The engine has one thread, and not every model's code hands on to its
# attention what it does not know.
_current: list[RowsPass] = []


def begin(rows: RowsPass) -> None:
    """Make `rows` the pass that attends, until `end`."""
    _current[:] = [rows]


def end() -> None:
    """No pass is under way any more."""
    _current.clear()


def _forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """transformers' interface of an attention function; see `AttentionInterface` there."""
    unknown = [name for name in _SCORES if more.get(name) is not None]
    if unknown or attention_mask is not None:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'a mask of its own'}")
    return _current[0].attend(query, key, value, scaling, softcap, s_aux), None


attention_hook.register(NAME, _forward)
