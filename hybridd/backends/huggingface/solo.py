"""Forward passes of one row each: for models that `batch` cannot serve.

Any cache that transformers makes for a model will do, recurrent states included. It cannot be cut
to a length, so that what a finished row computed is of use only to a prompt that begins with all
of it: to the next turn of the same conversation. Some models cannot even go on with several
tokens at a time, and some, the first GPT for one, have no memory at all: they compute the whole row
for each of its tokens. Which is so is tried when a model is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .kv_cache import Chosen, Row, common_prefix
from .library import DynamicCache, torch
from .loading import LoadedModel
from .session import PROBE_TOKENS, Session, close, probe_tokens


@dataclass(eq=False, slots=True)
class SoloRow(Row):
    """A row with a cache of its own.

    Attributes:
        cache: transformers' one.
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
    """

    def __init__(self, loaded: LoadedModel, parallel: int, cells: int, reason: str) -> None:
        super().__init__(loaded)
        self.parallel = parallel
        self.reason = reason
        # What the next pass gets beside its tokens.
        self._extra: Mapping[str, Any] = {}
        accepted = inspect.signature(self._model.forward).parameters
        # Recurrent models call theirs otherwise.
        self._cache_name = "cache_params" if "cache_params" in accepted else "past_key_values"
        # Where its code fails at a probe, whole prompts are the careful way.
        self._remembers = self._goes_on(PROBE_TOKENS - 1, unknown=True)
        self.divisible = self._remembers and self._goes_on(PROBE_TOKENS // 2, unknown=False)
        self._limit = cells
        self._running: list[SoloRow] = []
        self._kept: list[SoloRow] = []  # the longest unused first

    def take(self, prompt: Sequence[int], reserved: int, adapters: Chosen = ()) -> Row | None:
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
        seen = tokens if self._remembers else [*row.tokens, *tokens]
        logits = self._run(row.cache, seen, abort)
        row.tokens += tokens
        row.broken = False
        return logits[None]

    def _run(self, cache: Any, tokens: Sequence[int], abort: Callable[[], bool] | None) -> Any:
        keep = {"logits_to_keep": 1} if self._keeps_logits else {}
        with self._computing(abort):
            ids = torch.tensor([list(tokens)], device=self._device)
            own = {self._cache_name: cache, "use_cache": True}
            output = self._model(input_ids=ids, **own, **keep, **self._extra)
            return output.logits[0, -1]

    def _continues(self, row: Row, prompt: Sequence[int]) -> bool:
        limit = len(prompt) - 1
        return common_prefix(row.tokens, prompt, limit) == row.length

    def _new_row(self, prompt: Sequence[int]) -> SoloRow:
        return SoloRow(0, cache=self._new_cache())

    def _new_cache(self) -> Any:
        return DynamicCache(config=self._model.config)

    def _goes_on(self, at: int, *, unknown: bool) -> bool:
        """Whether a row in two passes, the second from token `at` on, gives what one gives.

        Args:
            unknown: The answer where the model's own code, as of others, fails at it.
        """
        tokens = probe_tokens(self._model.config.get_text_config(decoder=True))
        cache = self._new_cache()
        try:
            whole = self._run(self._new_cache(), tokens, None)
            self._run(cache, tokens[:at], None)
            behind = self._run(cache, tokens[at:], None)
            return close(behind, whole, self.loaded.quantization)
        except Exception:
            # What unknown code makes of a probe says nothing of whole prompts.
            return unknown
