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

from ..compat.library import DynamicCache, torch
from ..weights.loading import LoadedModel
from .kv_cache import Row
from .session import PROBE_TOKENS, Session, close, probe_tokens

# What models call their memory, the usual name last.
_CACHE_NAMES = ("cache_params", "state", "past_key_values")


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
        named = (name for name in _CACHE_NAMES if name in accepted)
        self._cache_name = next(named, _CACHE_NAMES[-1])
        # Some models count from zero in each pass that says nothing else; some cannot be told.
        tellable = self.counts and "position_ids" in accepted
        self._memory, self._told, self.divisible = self._found(tellable)
        self._limit = cells
        self._running: list[SoloRow] = []
        self._kept: list[SoloRow] = []  # the longest unused first

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
    ) -> Any:
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
        self, cache: Any, tokens: Sequence[int], past: int, abort: Callable[[], bool] | None
    ) -> tuple[Any, Any]:
        """The last token's logits, and the cache for what follows, behind `past` tokens."""
        given: dict[str, Any] = {"logits_to_keep": 1} if self._keeps_logits else {}
        if self._memory is Memory.NONE:
            given["use_cache"] = False
        else:
            given |= {self._cache_name: cache, "use_cache": True}
        if self._told:
            positions = torch.arange(past, past + len(tokens), device=self._device)
            given["position_ids"] = positions[None]
        with self._computing(abort):
            ids = torch.tensor([list(tokens)], device=self._device)
            output = self._model(input_ids=ids, **given, **self._extra)
            if self._memory is Memory.OWN:
                cache = getattr(output, self._cache_name)
            return output.logits[0, -1], cache

    def _continues(self, row: Row, prompt: Sequence[int]) -> bool:
        return shared_tokens(row.tokens, prompt) == row.length

    def _new_row(self, prompt: Sequence[int]) -> SoloRow:
        return SoloRow(0, cache=self._new_cache())

    def _new_cache(self) -> Any:
        given = self._memory is Memory.GIVEN
        return DynamicCache(config=self._model.config) if given else None

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
        for self._told in (True, False) if tellable else (False,):
            for self._memory in (Memory.GIVEN, Memory.OWN):
                whole = self._probe() if alone is None else alone
                if whole is not None and self._is(self._probe(PROBE_TOKENS - 1), whole):
                    several = self._is(self._probe(PROBE_TOKENS // 2), whole)
                    return self._memory, self._told, several
        # Where its code fails at any probe, that says nothing of whole prompts.
        return (Memory.GIVEN if alone is None else Memory.NONE), False, False

    def _probe(self, at: int = 0) -> Any | None:
        """Logits behind a few tokens in one pass, or in two of which the second begins `at`.

        Between the two another row has a pass: what a model keeps in itself is no row's memory.

        Returns:
            None where the model's own code, as of others, fails at it.
        """
        tokens = probe_tokens(self._model.config.get_text_config(decoder=True))
        try:
            cache = self._new_cache()
            if at:
                _, cache = self._run(cache, tokens[:at], 0, None)
                self._run(self._new_cache(), tokens[-2:], 0, None)
            return self._run(cache, tokens[at:], at, None)[0]
        except Exception:
            return None

    def _is(self, logits: Any | None, expected: Any) -> bool:
        return logits is not None and close(logits, expected, self.loaded.quantization)
