"""Forward passes of an encoder-decoder: the prompt goes through the encoder, once.

What a row's first pass gives are the logits behind the decoder's start; after that a pass is one
token of the decoder, with its own cache and that of the encoder's states. Rows take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice

from ..compat import cache
from ..compat.imports import Tensor, torch
from ..weights.loading import LoadedModel
from .kv_cache import Row
from .session import Session


@dataclass(eq=False, slots=True)
class Seq2SeqRow(Row):
    """A row with what the encoder made and the decoder's cache, once there are such."""

    encoded: Any = None
    cache: Any = None


class Seq2SeqSession(Session):
    """See the module."""

    divisible = False
    reason = "the model is an encoder-decoder"

    def __init__(self, loaded: LoadedModel, parallel: int) -> None:
        super().__init__(loaded)
        self.parallel = parallel
        self._suffix = loaded.vocabulary.suffix
        self._start = _start_tokens(loaded.model)

    def take(
        self, prompt: Sequence[int], reserved: int, adapters: AdapterChoice = NO_ADAPTERS
    ) -> Row | None:
        """See `Session`; nothing is kept between two rows."""
        return Seq2SeqRow(0, reserved=reserved, adapters=adapters)

    def give_back(self, row: Row) -> None:
        """See `Session`; its states go with it."""

    def forward(
        self, works: Sequence[tuple[Row, Sequence[int]]], abort: Callable[[], bool] | None = None
    ) -> Tensor:
        """See `Session`; a row's first tokens are its whole prompt."""
        logits = []
        for row, tokens in works:
            assert isinstance(row, Seq2SeqRow)
            with self._computing(abort):
                if row.cache is None:
                    logits.append(self._begin(row, tokens))
                else:
                    logits.append(self._go(row.encoded, row.cache, tokens))
            row.tokens += tokens
        return torch.stack(logits)

    def _begin(self, row: Seq2SeqRow, tokens: Sequence[int]) -> Tensor:
        ids = torch.tensor([[*tokens, *self._suffix]], device=self._device)  # (1, T)
        encoder = self._model.get_encoder()
        encoded = encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        states = cache.new_pair()
        logits = self._go(encoded, states, self._start)
        # Kept only once it is whole: an aborted pass leaves the row as it was.
        row.encoded, row.cache = encoded, states
        return logits

    def _go(self, encoded: Any, states: Any, tokens: Sequence[int]) -> Tensor:
        """The logits behind the decoder's last token, `(vocabulary,)`."""
        output = self._model(
            encoder_outputs=encoded,
            attention_mask=torch.ones(encoded.last_hidden_state.shape[:2], device=self._device),
            decoder_input_ids=torch.tensor([list(tokens)], device=self._device),
            use_cache=True,
            **{str(self._cache_name): states},
        )
        logits: Tensor = output.logits[0, -1]
        return logits


def _start_tokens(model: Any) -> list[int]:
    """What the decoder begins with: its start token, and one that it is made to say first."""
    starts = [_said(model, name) for name in ("decoder_start_token_id", "forced_bos_token_id")]
    return [token for token in starts if token is not None] or [_said(model, "bos_token_id") or 0]


def _said(model: Any, name: str) -> int | None:
    for config in (model.generation_config, model.config):
        if (value := getattr(config, name, None)) is not None:
            return int(value)
    return None
