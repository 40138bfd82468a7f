"""The KV cache of all rows: one pair of tensors per layer, `(slots, heads, cells, dim)`.

A row is one sequence and has one slot. Slots and cells grow as they are needed and never beyond
the load's `kv_cells`: slots times cells is what the memory plan reserved. What a finished row
computed stays in its slot for a request that continues it, until another one needs the room.

Knows no attention and no model: `attention` reads and writes the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.engine.prefix import keeps_most, shared_tokens, worth_copying

from ..compat.imports import Tensor, torch
from ..weights.memory import fresh

# Cells come in steps: growing copies everything, so it should be seldom, and little enough
# memory for many short conversations side by side.
_STEP = 256
# A shared beginning that is shorter is not worth a copy.
MIN_COPIED_TOKENS = 8


class LayerShape(NamedTuple):
    """What one layer keeps of a token: `heads` vectors of each size, of a dtype, on a device."""

    heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device


@dataclass(eq=False, slots=True)
class Row:
    """One sequence in the cache.

    Attributes:
        slot: Index of its slot; changes when the tensors are rebuilt.
        tokens: Those whose keys and values are in the cache.
        reserved: Cells that it may come to need; 0 when it is only kept.
        used_at: When it was last given back, on the cache's own clock.
        inputs: What the pass over its prompt gets beside tokens, which say not all of it then: they
            serve no other row.
        adapters: What it is computed with.
        shift: How far its tokens' positions are from the numbers of their cells.
    """

    slot: int
    tokens: list[int] = field(default_factory=list)
    reserved: int = 0
    used_at: int = 0
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    adapters: AdapterChoice = NO_ADAPTERS
    shift: int = 0

    @property
    def length(self) -> int:
        """How many of its cells are filled."""
        return len(self.tokens)

    @property
    def whole(self) -> bool:
        """Whether its prompt is to be computed in one pass."""
        return bool(self.inputs)


class KVCache:
    """Rows that run and rows that are kept.

    Args:
        shapes: Of the layers, in order.
        parallel: At most so many rows run at a time.
        cells: At most so many cells in all slots together.

    Attributes:
        keys: Of each layer, `(slots, heads, cells, dim)`; zero where nothing was written, since
            what a mask hides still gets multiplied.
        values: The same.
    """

    def __init__(self, shapes: Sequence[LayerShape], parallel: int, cells: int) -> None:
        self._shapes = list(shapes)
        self._parallel = parallel
        self._limit = cells
        self._running: list[Row] = []
        self._kept: list[Row] = []
        self._clock = 0
        self.slots = 0
        self.cells = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._torn = False
        self._rebuild(1, min(_STEP, cells))

    # ------------------------------------------------------------------ rows

    @property
    def kept(self) -> int:
        """How many finished rows are kept for requests that continue them."""
        return len(self._kept)

    def take(
        self,
        prompt: Sequence[int],
        reserved: int,
        adapters: AdapterChoice = NO_ADAPTERS,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> Row | None:
        """A row for `prompt`, with as much of it as is in the cache already.

        At least one token is left to compute, for its logits. The row may grow to `reserved`
        cells, however many others run.

        Returns:
            None when there is no room beside the rows that run.
        """
        self._mend()
        most = max([reserved, *(row.reserved for row in self._running)])
        running = len(self._running) + 1
        if running > self._parallel or running * most > self._limit:
            return None
        kept, spared = (None, 0) if inputs else self._continued(prompt, adapters)
        source, shared = (None, 0) if inputs else self._best(self._rows(), prompt, adapters)
        if kept is not None and not worth_copying(shared, spared, MIN_COPIED_TOKENS):
            self._kept.remove(kept)
            del kept.tokens[spared:]
            row = kept
        elif worth_copying(shared, 0, MIN_COPIED_TOKENS):
            row = self._new_row(prompt, source, shared)
        else:
            row = self._new_row(prompt, None, 0)
        row.reserved, row.adapters, row.inputs = reserved, adapters, inputs or {}
        self._running.append(row)
        return row

    def _new_row(self, prompt: Sequence[int], source: Row | None, shared: int) -> Row:
        slot = self._free_slot(len(prompt), source)
        if slot is None:
            assert source is not None
            self._kept.remove(source)
            del source.tokens[shared:]
            return source
        row = Row(slot)
        if source is not None:
            self._copy(source, row, shared)
        return row

    def give_back(self, row: Row) -> None:
        """A row is finished; what it computed is kept as long as there is room."""
        self._running.remove(row)
        row.reserved = 0
        self._clock += 1
        row.used_at = self._clock
        if row.tokens and not row.inputs:
            self._kept.append(row)

    def leave(self, row: Row) -> None:
        """A row ends within its prompt: its cells were not checked for NaN yet.

        Nor in those that it was given: the row they are of may be within its prompt as well.
        """
        own = slice(row.length)
        tensors = [*self.keys, *self.values]
        if self._torn or not all(bool(t[row.slot, :, own].isfinite().all()) for t in tensors):
            self.drop(row)
        else:
            self.give_back(row)

    def clear(self, row: Row, count: int) -> None:
        """Clear the cells of a row's next tokens, where a pass was ended in its middle."""
        for tensor in [*self.keys, *self.values]:
            tensor[row.slot, :, row.length : row.length + count] = 0

    def ensure(self, cells: int) -> None:
        """Let every row that runs have `cells` cells, no more than each reserved.

        Kept rows go for it, those first that were not used for the longest time.

        Raises:
            MemoryError: The rows that run have lost what they had.
        """
        self._mend()
        if cells <= self.cells:
            return
        wanted = max(2 * self.cells, _rounded(cells))
        if wanted * len(self._rows()) > self._limit:
            wanted = _rounded(cells)
        wanted = min(wanted, self._limit // len(self._running))
        while len(self._rows()) * wanted > self._limit:
            self._forget_oldest()
        self._rebuild(min(self.slots, self._limit // wanted), wanted)

    def drop(self, row: Row) -> None:
        """A row is finished and what it has in the cache is of no use, nor harmless.

        Cells with NaN would spoil the next row there: what a mask hides is multiplied by zero.
        """
        if not self._torn:
            for tensor in [*self.keys, *self.values]:
                tensor[row.slot].zero_()
        row.tokens.clear()
        self.give_back(row)

    def fill(self, row: Row, layers: Sequence[tuple[Tensor, Tensor]], count: int) -> None:
        """Put what was computed elsewhere for the first `count` tokens of a row into its cells.

        Args:
            layers: Keys and values of each, `(1, heads, tokens, dim)`. Those of a layer that looks
                back only so far may be of the last tokens alone.
        """
        for layer, (keys, values) in enumerate(layers):
            cells = slice(count - keys.shape[2], count)
            self.keys[layer][row.slot, :, cells] = keys[0]
            self.values[layer][row.slot, :, cells] = values[0]

    # ------------------------------------------------------------------ prefixes

    def _continued(self, prompt: Sequence[int], adapters: AdapterChoice) -> tuple[Row | None, int]:
        """The kept row that is taken over for a prompt, and how much it spares: see `prefix`."""
        rows = [r for r in self._kept if keeps_most(shared_tokens(r.tokens, prompt), r.length)]
        return self._best(rows, prompt, adapters)

    def _best(
        self, rows: Sequence[Row], prompt: Sequence[int], adapters: AdapterChoice
    ) -> tuple[Row | None, int]:
        """The row that spares most of a prompt, and how many tokens that is."""
        best: tuple[Row | None, int] = None, 0
        for row in rows:
            if row.adapters != adapters or row.inputs:
                continue
            if (shared := shared_tokens(row.tokens, prompt)) > best[1]:
                best = row, shared
        return best

    def _copy(self, source: Row, row: Row, count: int) -> None:
        for tensor in [*self.keys, *self.values]:
            tensor[row.slot, :, :count] = tensor[source.slot, :, :count]
        row.tokens = source.tokens[:count]

    # ------------------------------------------------------------------ memory

    def _rows(self) -> list[Row]:
        return [*self._running, *self._kept]

    def _free_slot(self, prompt_tokens: int, source: Row | None) -> int | None:
        """A slot that no row has; None when only the one of `source`, which is kept, would do."""
        while True:
            rows = self._rows()
            taken = {row.slot for row in rows}
            if len(taken) < self.slots:
                return next(slot for slot in range(self.slots) if slot not in taken)
            cells = self.cells
            if (len(rows) + 1) * cells > self._limit:
                # Cells that no row uses any more are worth less than a row.
                used = max([prompt_tokens + 1, *(row.length for row in rows)])
                cells = min(cells, _rounded(used), self._limit // (len(self._running) + 1))
            if (len(rows) + 1) * cells <= self._limit:
                self._rebuild(min(2 * self.slots, self._limit // cells), cells)
            elif self._kept == [source]:
                return None
            else:
                self._forget_oldest(source)

    def _forget_oldest(self, but: Row | None = None) -> None:
        others = (row for row in self._kept if row is not but)
        self._kept.remove(min(others, key=lambda row: row.used_at))

    def _mend(self) -> None:
        """Begin anew after a `_rebuild` that failed, once no row runs that needs what was there.

        Raises:
            MemoryError: One does: it has to end.
        """
        if not self._torn:
            return
        self._kept.clear()
        if self._running:
            raise MemoryError("the rows were lost as the cache grew")
        self.keys, self.values = [], []
        self._rebuild(1, min(_STEP, self._limit))

    def _rebuild(self, slots: int, cells: int) -> None:
        """Make tensors of a new size and bring all rows into them, one layer at a time."""
        rows = self._rows()
        slots = max(slots, len(rows), 1)
        self._torn = True  # until all layers are of the new size; without memory none may be
        for layer, shape in enumerate(self._shapes):
            keys, values = _layer(slots, cells, shape)
            for i, row in enumerate(rows):
                for new, old in ((keys, self.keys[layer]), (values, self.values[layer])):
                    new[i, :, : row.length] = old[row.slot, :, : row.length]
            self.keys[layer : layer + 1] = [keys]
            self.values[layer : layer + 1] = [values]
        for i, row in enumerate(rows):
            row.slot = i
        self.slots, self.cells = slots, cells
        self._torn = False


def _layer(slots: int, cells: int, shape: LayerShape) -> tuple[Tensor, Tensor]:
    """Keys and values of one layer; see `KVCache`."""
    heads, key_dim, value_dim, _, _ = shape
    return (
        _zeros((slots, heads, cells, key_dim), shape),
        _zeros((slots, heads, cells, value_dim), shape),
    )


def _zeros(size: tuple[int, ...], shape: LayerShape) -> Tensor:
    """A tensor of zeros; in main memory one that takes no page before it is written to.

    Cells come by the hundred and most are never used; on a virtual machine touching 100 MB of them
    takes as long as ten passes of a small model.

    Raises:
        MemoryError: There is not enough.
    """
    if shape.device.type != "cpu":
        return torch.zeros(size, dtype=shape.dtype, device=shape.device)
    return fresh(math.prod(size), shape.dtype).view(size)


def _rounded(cells: int) -> int:
    return -(-cells // _STEP) * _STEP
