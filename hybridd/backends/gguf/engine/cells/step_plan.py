"""Which rows go through the model together in one step: a pure function.

Every sequence that generates gets its one row; prompts get what is left of the micro-batch, in the
order in which they came, so that a long prompt holds the others up for one micro-batch at most.

With unified cells all that is one pass, but where attention on processors is faster with those that
generate in one of their own (`attention_tiles`). As streams, llama.cpp computes only sequences with
neighbouring numbers together, each with an equal number of rows, and would cut a mixed batch into
many small ones, of which each reads all weights again. So prompts go apart from sequences that
generate there, neighbours of about the same length together. What is missing to neighbours and to
equal lengths, where it is little, is filled with rows that are taken back afterwards.

Adapters are a state of the context: sequences with different ones get passes of their own, every
one of them in every step, so that no request waits for the others' turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice

from ..weights.attention_tiles import Tiles

# A row that fills a gap costs a fraction of what another pass over the weights does; measured with
# 0.5 B on two cores, about a third.
MAX_GAP = 2
# Rows that may be added to prompts where that saves a pass: reading the weights once more costs as
# much as ten rows of a prompt with two cores, and more where there are more.
MAX_FILLING = 8
# A pass for fewer tokens of a longer prompt spends more on reading the weights than it gains.
MIN_FRAGMENT = 64


class Runnable(Protocol):
    """What has to be known of a sequence."""

    @property
    def slot_index(self) -> int:
        """The sequence's number in the context."""
        ...

    @property
    def todo(self) -> int:
        """Tokens that are not in the cells yet; one or more."""
        ...

    @property
    def length(self) -> int:
        """Tokens that it has, done or not."""
        ...

    @property
    def generating(self) -> bool:
        """Whether its prompt is done; `todo` is 1 then."""
        ...

    @property
    def draft(self) -> Sequence[int]:
        """Tokens that go along behind the next one; none but where it generates."""
        ...

    @property
    def adapters(self) -> AdapterChoice:
        """What it is computed with."""
        ...


R = TypeVar("R", bound=Runnable)


@dataclass(frozen=True)
class Row(Generic[R]):
    """A part of a sequence: `count` tokens from the first that is not done, and its draft.

    Attributes:
        filling: Rows behind them whose logits are not wanted, for all streams of a pass to have as
            many, or for attention to go faster (`attention_tiles`).
    """

    sequence: R
    count: int
    filling: int = 0


@dataclass(frozen=True)
class Pass(Generic[R]):
    """What one `llama_decode` computes.

    Attributes:
        rows: In the order of the batch.
        gaps: Sequence numbers between them that get a row that is only filling.
        adapters: What all of them are computed with.
    """

    rows: Sequence[Row[R]]
    gaps: Sequence[int] = ()
    adapters: AdapterChoice = NO_ADAPTERS


def compose(
    sequences: Sequence[R],
    micro_batch: int,
    *,
    unified: bool,
    fill_to: int = 0,
    tiles: Tiles | None = None,
    in_force: AdapterChoice = NO_ADAPTERS,
) -> list[Pass[R]]:
    """Passes of one step.

    Args:
        sequences: Those to be brought forward, in the order they came.
        micro_batch: Rows of the step, of all passes together; at least one a sequence, and its
            draft.
        unified: Whether the sequences share their cells.
        fill_to: A sequence may be added rows that are taken back as long as it has no more tokens
            than this; 0 where none may.
        tiles: What filling brings where attention is the processor's; None elsewhere.
        in_force: The adapters of the pass before; another one with them comes first.
    """
    generating = [Row(s, 1) for s in sequences if s.generating]
    left = micro_batch - sum(1 + len(row.sequence.draft) for row in generating)
    prompts: list[Row[R]] = []
    for sequence in sequences:
        if not sequence.generating and left > 0:
            count = min(sequence.todo, left)
            if prompts and not unified and count < min(sequence.todo, MIN_FRAGMENT):
                break
            prompts.append(Row(sequence, count))
            left -= count
    choices = dict.fromkeys(row.sequence.adapters for row in [*generating, *prompts])
    passes: list[Pass[R]] = []
    for adapters in sorted(choices, key=lambda choice: choice != in_force):
        tokens = [row for row in generating if row.sequence.adapters == adapters]
        chunks = [row for row in prompts if row.sequence.adapters == adapters]
        if unified:
            for rows in _apart(tokens, chunks, tiles):
                if tiles is not None and rows is not tokens:
                    rows = _tiled(rows, tiles, micro_batch, fill_to, shared=True)
                passes.append(Pass(rows, (), adapters))
            continue
        if tokens:
            tokens.sort(key=lambda row: row.sequence.slot_index)
            numbers = [row.sequence.slot_index for row in tokens]
            passes.append(Pass(tokens, _gaps(numbers) if fill_to else (), adapters))
        for rows in _joined(chunks, micro_batch, fill_to):
            if tiles is not None:
                rows = _tiled(rows, tiles, micro_batch, fill_to, shared=False)
            passes.append(Pass(rows, (), adapters))
    return passes


def _joined(chunks: list[Row[R]], micro_batch: int, fill_to: int) -> list[list[Row[R]]]:
    """Parts of prompts that go together: of neighbours, each with as many rows as the longest."""
    groups: list[list[Row[R]]] = []
    for row in sorted(chunks, key=lambda row: row.sequence.slot_index):
        if groups and row.sequence.slot_index == groups[-1][-1].sequence.slot_index + 1:
            filled = _filled([*groups[-1], row])
            added = sum(each.filling for each in filled) - sum(e.filling for e in groups[-1])
            if added <= (MAX_FILLING if fill_to else 0) and _fit(filled, micro_batch, fill_to):
                groups[-1] = filled
                continue
        groups.append([row])
    return groups


def _filled(rows: list[Row[R]]) -> list[Row[R]]:
    """The same rows, all of them as wide as the longest."""
    width = max(row.count for row in rows)
    return [replace(row, filling=width - row.count) for row in rows]


def _fit(rows: list[Row[R]], micro_batch: int, fill_to: int) -> bool:
    """Whether a pass has room for the rows, and each sequence for its own."""
    return sum(map(_width, rows)) <= micro_batch and all(
        _end(row) + row.filling <= fill_to for row in rows if row.filling
    )


def _width(row: Row[R]) -> int:
    """How many rows of the batch it takes."""
    return row.count + len(row.sequence.draft) + row.filling


def _end(row: Row[R]) -> int:
    """How many tokens of its sequence are done once a row is."""
    return row.sequence.length - row.sequence.todo + row.count


def _apart(tokens: list[Row[R]], chunks: list[Row[R]], tiles: Tiles | None) -> list[list[Row[R]]]:
    """The passes of rows that share their cells: those that generate alone where that is faster."""
    if not tokens or not chunks:
        return [tokens or chunks]
    if tiles is not None:
        lots = [[*map(measure, rows)] for rows in (tokens, chunks) for measure in (_width, _end)]
        if tiles.apart(*lots):
            return [tokens, chunks]
    return [[*tokens, *chunks]]


def _tiled(
    rows: list[Row[R]], tiles: Tiles, micro_batch: int, fill_to: int, *, shared: bool
) -> list[Row[R]]:
    """The rows of a pass, filled where attention gains more than that costs.

    Args:
        shared: They share their cells, and are one to attention: the last is filled for all.
    """
    added = tiles.filling(list(map(_width, rows)), list(map(_end, rows)), shared=shared)
    first = len(rows) - 1 if shared else 0
    filled = [replace(row, filling=row.filling + added) for row in rows[first:]]
    filled[:0] = rows[:first]
    return filled if added and _fit(filled, micro_batch, fill_to) else rows


def _gaps(numbers: Sequence[int]) -> list[int]:
    """The numbers missing between neighbours that are close enough."""
    return [
        missing
        for one, other in pairwise(numbers)
        if other - one - 1 <= MAX_GAP
        for missing in range(one + 1, other)
    ]
