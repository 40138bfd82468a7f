"""Forward passes of one row each: for models that `batched` cannot serve.

Any cache that transformers makes for a model will do, recurrent states included, and one that the
model makes itself. It cannot be cut to a length, so that what a finished row computed is of use
only to a prompt that begins with all of it: to the next turn of the same conversation. Some models
cannot even go on with several tokens at a time, and some, the first GPT for one, have no memory at
all: they compute the whole row for each of its tokens. Which is so is tried when a model is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.engine.prefix import shared_tokens

from ..compat import cache
from ..compat.cache import ARGUMENT
from ..compat.imports import Tensor, torch
from ..weights.loading import LoadedModel
from .kv_cache import Row
from .session import PROBE_TOKENS, Session, close, probe_tokens

_NO_MEMORY = "each token takes a pass over the whole text: the model keeps nothing of a request"
_INDIVISIBLE = (
    "a prompt is computed in one pass and anew in each turn: the model goes on with single tokens "
    "alone"
)


class Memory(Enum):
    """Where a model's next pass finds what the passes before it computed."""

    GIVEN = "in transformers' cache for its configuration"
    OWN = "in what it makes itself in the first pass"
    NONE = "nowhere"


@dataclass(eq=False, slots=True)
class SoloRow(Row):
    """A row with a cache of its own.

    Attributes:
        cache: transformers' or the model's; None where there is none yet.
        broken: A pass was ended in its middle: the cache is of no use any more.
    """

    cache: Any = None
    broken: bool = False


class SoloSession(Session):
    """See the module.

    Args:
        parallel: So many rows at a time; they take turns.
        cells: For all of them.
        reason: Why rows do not share forward passes.

    Attributes:
        counts: Whether a token's position is its number in the row.
    """

    counts = True

    def __init__(self, loaded: LoadedModel, parallel: int, cells: int, reason: str) -> None:
        super().__init__(loaded)
        self.parallel = parallel
        self.reason = reason
        # What the next pass gets beside its tokens.
        self._extra: Mapping[str, Any] = {}
        accepted = inspect.signature(self._model.forward).parameters
        # Some models count from zero in each pass that says nothing else; some cannot be told.
        tellable = self.counts and "position_ids" in accepted
        self._memory, self._told, self.divisible = self._found(tellable)
        self._limit = cells
        self._running: list[SoloRow] = []
        self._kept: list[SoloRow] = []  # the longest unused first

    @property
    def notes(self) -> list[str]:
        """See `Session`."""
        if self._memory is Memory.NONE:
            return [*super().notes, ARGUMENT.without if self._cache_name is None else _NO_MEMORY]
        return super().notes if self.divisible else [*super().notes, _INDIVISIBLE]

    def take(
        self, prompt: Sequence[int], reserved: int, adapters: AdapterChoice = NO_ADAPTERS
    ) -> Row | None:
        """See `Session`."""
        room = self._limit - reserved - sum(row.reserved for row in self._running)
        if room < 0 or len(self._running) >= self.parallel:
            return None
        alike = [row for row in self._kept if row.adapters == adapters]
        continued = [row for row in alike if self._continues(row, prompt)]
        row = max(continued, key=lambda row: row.length, default=None)
        if row is None:
            row = self._new_row(prompt)
        else:
            self._kept.remove(row)
        while self._kept and sum(row.length for row in self._kept) > room:
            del self._kept[0]
        row.reserved, row.adapters = reserved, adapters
        self._running.append(row)
        return row

    def give_back(self, row: Row) -> None:
        """See `Session`."""
        assert isinstance(row, SoloRow)
        self._running.remove(row)
        row.reserved = 0
        if row.tokens and self.divisible and not row.broken:
            self._kept.append(row)

    def forward(
        self, works: Sequence[tuple[Row, Sequence[int]]], abort: Callable[[], bool] | None = None
    ) -> Tensor:
        """See `Session`; it takes one row."""
        ((row, tokens),) = works
        assert isinstance(row, SoloRow)
        row.broken = True  # until all layers have seen the tokens
        if self._memory is Memory.NONE:
            logits, _ = self._run(None, [*row.tokens, *tokens], 0, abort)
        else:
            logits, row.cache = self._run(row.cache, tokens, row.length, abort)
        row.tokens += tokens
        row.broken = False
        return logits[None]

    def _run(
        self, kept: Any, tokens: Sequence[int], past: int, abort: Callable[[], bool] | None
    ) -> tuple[Tensor, Any]:
        """The last token's logits, `(vocabulary,)`, and the cache for what follows.

        Args:
            kept: The cache of what lies before.
            past: How many tokens that are.
        """
        given: dict[str, Any] = {"logits_to_keep": 1} if self._keeps_logits else {}
        if self._memory is Memory.NONE:
            given["use_cache"] = False
        else:
            given |= {str(self._cache_name): kept, "use_cache": True}
        if self._told:
            positions = torch.arange(past, past + len(tokens), device=self._device)
            given["position_ids"] = positions[None]
        with self._computing(abort):
            ids = torch.tensor([list(tokens)], device=self._device)
            output = self._model(input_ids=ids, **given, **self._extra)
            if self._memory is Memory.OWN:
                kept = cache.returned(output)
            return output.logits[0, -1], kept

    def _continues(self, row: Row, prompt: Sequence[int]) -> bool:
        return shared_tokens(row.tokens, prompt) == row.length

    def _new_row(self, prompt: Sequence[int]) -> SoloRow:
        return SoloRow(0, cache=self._new_cache())

    def _new_cache(self) -> Any:
        given = self._memory is Memory.GIVEN
        return cache.new_cache(self._model.config) if given else None

    # ------------------------------------------------------------------ trying

    def _found(self, tellable: bool) -> tuple[Memory, bool, bool]:
        """The model's memory, and whether it is told positions and goes on with several tokens.

        Each is put in force to be tried.

        Args:
            tellable: Whether it can be told.
        """
        # By itself: some count from two on, and are wrong when they are told to begin at zero.
        self._memory, self._told = Memory.NONE, False
        alone = self._probe()
        if self._cache_name is None:
            return Memory.NONE, False, False
        for self._told in (True, False) if tellable else (False,):
            for self._memory in (Memory.GIVEN, Memory.OWN):
                whole = self._probe() if alone is None else alone
                if whole is not None and self._is(self._probe(PROBE_TOKENS - 1), whole):
                    several = self._is(self._probe(PROBE_TOKENS // 2), whole)
                    return self._memory, self._told, several
        # Where its code fails at any probe, that says nothing of whole prompts.
        return (Memory.GIVEN if alone is None else Memory.NONE), False, False

    def _probe(self, at: int = 0) -> Tensor | None:
        """Logits behind a few tokens in one pass, or in two of which the second begins `at`.

        Between the two another row has a pass: what a model keeps in itself is no row's memory.

        Returns:
            `(vocabulary,)`; None where the model's own code, as of others, fails at it.
        """
        tokens = probe_tokens(self._model.config.get_text_config(decoder=True))
        try:
            kept = self._new_cache()
            if at:
                _, kept = self._run(kept, tokens[:at], 0, None)
                self._run(self._new_cache(), tokens[-2:], 0, None)
            return self._run(kept, tokens[at:], at, None)[0]
        except Exception:
            return None

    def _is(self, logits: Tensor | None, expected: Tensor) -> bool:
        return logits is not None and close(logits, expected, self.loaded.quantization)
