"""Forward passes of models that read pictures.

A prompt with pictures is computed in one pass of its own, with its pictures and by the model's own
attention, which may look at a picture as a whole. Nothing of it is used again, for its tokens do
not say which pictures they stood for. Everything else, the tokens that follow it among them, is
computed as `batched` does it where the model can, else as `sequential` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice

from ..compat import cache
from ..compat.imports import Tensor, torch
from ..compat.picture_positions import PicturePositions
from ..tokens.picture_prompts import PicturePrompt
from ..weights.loading import LoadedModel
from . import attention
from .batched import BatchSession
from .kv_cache import Row
from .sequential import Memory, SoloRow, SoloSession


class VisionBatchSession(BatchSession):
    """Rows together, but for prompts with pictures."""

    def __init__(self, loaded: LoadedModel, parallel: int, cells: int) -> None:
        self._positions = PicturePositions(loaded.model)
        super().__init__(loaded, parallel, cells)

    def take(
        self, prompt: Sequence[int], reserved: int, adapters: AdapterChoice = NO_ADAPTERS
    ) -> Row | None:
        """See `Session`."""
        inputs = prompt.inputs if isinstance(prompt, PicturePrompt) else None
        with torch.inference_mode():
            return self._cache.take(prompt, reserved, adapters, inputs)

    def forward(
        self, works: Sequence[tuple[Row, Sequence[int]]], abort: Callable[[], bool] | None = None
    ) -> Tensor:
        """See `Session`; a prompt with pictures comes whole and alone."""
        row, tokens = works[0]
        if not row.inputs or row.tokens:
            return super().forward(works, abort)
        assert len(works) == 1
        own_cache = cache.new_cache(self._model.config)
        given: dict[str, Any] = {str(self._cache_name): own_cache, "use_cache": True}
        if self._keeps_logits:
            given["logits_to_keep"] = 1
        self._moved()  # an aborted pass may have left it
        with self._computing(abort), self._own_attention():
            self._cache.ensure(len(tokens))
            output = self._model(
                input_ids=torch.tensor([list(tokens)], device=self._device),
                **given,
                **_placed(row.inputs, self.loaded),
            )
            row.shift = self._moved()
            self._cache.fill(row, cache.keys_and_values(own_cache), len(tokens))
        row.tokens += tokens
        logits: Tensor = output.logits[:, -1]  # (1, vocabulary)
        return logits

    def _moved(self) -> int:
        """How far the last prompt's pictures moved the positions; forgets it."""
        moved, self._positions.deltas = self._positions.deltas, None
        return 0 if moved is None else int(moved)

    @contextmanager
    def _own_attention(self) -> Iterator[None]:
        self._attention.use(None)
        try:
            yield
        finally:
            self._attention.use(attention.NAME)


@dataclass(eq=False, slots=True)
class VisionRow(SoloRow):
    """A row of `VisionSession`.

    Attributes:
        deltas: How far this row's positions are from its tokens', where a model keeps that.
    """

    deltas: Tensor | None = None


class VisionSession(SoloSession):
    """Rows by turns.

    Args:
        reason: Why.
    """

    counts = False  # pictures have others, which the model knows

    def __init__(self, loaded: LoadedModel, parallel: int, cells: int, reason: str) -> None:
        self._positions = PicturePositions(loaded.model)
        super().__init__(loaded, parallel, cells, reason)

    def give_back(self, row: Row) -> None:
        """See `Session`."""
        assert isinstance(row, VisionRow)
        row.broken = row.broken or row.whole
        super().give_back(row)

    def forward(
        self, works: Sequence[tuple[Row, Sequence[int]]], abort: Callable[[], bool] | None = None
    ) -> Tensor:
        """See `Session`; the first tokens of a row with pictures are its whole prompt."""
        ((row, tokens),) = works
        assert isinstance(row, VisionRow)
        self._extra = {} if row.tokens else _placed(row.inputs, self.loaded)
        if row.inputs and row.tokens and self._memory is Memory.NONE:
            assert self.loaded.pictures is not None
            inputs = self.loaded.pictures.place(row.inputs, [*row.tokens, *tokens])
            self._extra = _placed(inputs, self.loaded)
        self._positions.deltas = row.deltas
        try:
            return super().forward(works, abort)
        finally:
            self._extra = {}
            row.deltas = self._positions.deltas

    def _new_row(self, prompt: Sequence[int]) -> SoloRow:
        inputs = prompt.inputs if isinstance(prompt, PicturePrompt) else {}
        return VisionRow(0, cache=self._new_cache(), inputs=inputs)

    def _continues(self, row: Row, prompt: Sequence[int]) -> bool:
        return not isinstance(prompt, PicturePrompt) and super()._continues(row, prompt)


def _placed(inputs: Mapping[str, Tensor], loaded: LoadedModel) -> Mapping[str, Tensor]:
    """A prompt's inputs where the model takes them, numbers in its own dtype."""
    placed = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):  # some processors add lists of sizes
            dtype = loaded.dtype if value.is_floating_point() else value.dtype
            placed[name] = value.to(loaded.device, dtype)
    return placed
