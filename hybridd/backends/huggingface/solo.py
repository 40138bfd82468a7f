"""Forward passes for one row at a time: for models that `batch` cannot serve.

Any cache that transformers makes for a model will do, recurrent states included. It cannot be cut
to a length, so that what a finished row computed is of use only to a prompt that begins with all
of it: to the next turn of the same conversation. Some models cannot even go on with several
tokens at a time; whether one can is tried when it is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .kv_cache import Row, common_prefix
from .library import DynamicCache, torch
from .loading import LoadedModel
from .session import Session, close, probe_tokens


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
        reason: Why rows do not share forward passes.
    """

    parallel = 1

    def __init__(self, loaded: LoadedModel, reason: str) -> None:
        super().__init__(loaded)
        self.reason = reason
        accepted = inspect.signature(self._model.forward).parameters
        # Recurrent models call theirs otherwise.
        self._cache_name = "cache_params" if "cache_params" in accepted else "past_key_values"
        self.divisible = self._is_divisible()
        self._running: SoloRow | None = None
        self._kept: SoloRow | None = None

    def take(self, prompt: Sequence[int], reserved: int) -> Row | None:
        """See `Session`."""
        if self._running is not None:
            return None
        row, self._kept = self._kept, None
        if (
            row is None
            or not self.divisible
            or common_prefix(row.tokens, prompt, len(prompt) - 1) < row.length
        ):
            row = SoloRow(0, cache=self._new_cache())
        row.reserved = reserved
        self._running = row
        return row

    def give_back(self, row: Row) -> None:
        """See `Session`."""
        assert isinstance(row, SoloRow)
        self._running = None
        self._kept = row if row.tokens and not row.broken else None

    def forward(
        self, works: Sequence[tuple[Row, Sequence[int]]], abort: Callable[[], bool] | None = None
    ) -> Any:
        """See `Session`."""
        made = []
        for row, tokens in works:
            assert isinstance(row, SoloRow)
            row.broken = True  # until all layers have seen the tokens
            made.append(self._run(row.cache, tokens, abort))
            row.tokens += tokens
            row.broken = False
        return torch.stack(made)

    def _run(self, cache: Any, tokens: Sequence[int], abort: Callable[[], bool] | None) -> Any:
        keep = {"logits_to_keep": 1} if self._keeps_logits else {}
        with self._computing(abort):
            ids = torch.tensor([list(tokens)], device=self._device)
            output = self._model(input_ids=ids, **{self._cache_name: cache}, use_cache=True, **keep)
            return output.logits[0, -1]

    def _continues(self, row: Row, prompt: Sequence[int]) -> bool:
        limit = len(prompt) - 1
        return self.divisible and common_prefix(row.tokens, prompt, limit) == row.length

    def _new_cache(self) -> Any:
        return DynamicCache(config=self._model.config)

    def _is_divisible(self) -> bool:
        tokens = probe_tokens(self._model.config.get_text_config(decoder=True))
        half = len(tokens) // 2
        cache = self._new_cache()
        try:
            whole = self._run(self._new_cache(), tokens, None)
            self._run(cache, tokens[:half], None)
            return close(self._run(cache, tokens[half:], None), whole)
        except Exception:
            # Unknown code: what it makes of a probe says nothing of whole prompts.
            return False
