"""Forward passes that many rows share; see `attention` for how and `kv_cache` for where.

Whether a model can be served so is found out when it is first loaded: its layers have to be of
kinds that are known here, and a few tokens have to give the logits that they give without us.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.engine.passes import Aborted

from ..compat import cache
from ..compat.attention_hook import AttentionHook
from ..compat.imports import Tensor, torch
from ..compat.leaning import Missing
from ..weights.loading import LoadedModel
from . import attention
from .kv_cache import KVCache, LayerShape, Row
from .probe_results import Trials
from .session import PROBE_TOKENS, Session, close, probe_tokens

_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
# Rotary embeddings that are scaled by the longest position of a pass: one row would change what
# another one gets.
_SHARED_ROPE = ("dynamic", "longrope")


class NotBatchable(Exception):
    """Rows cannot share forward passes of this model; the text says why."""


class BatchSession(Session):
    """See the module.

    Args:
        loaded: The model; its attention is ours until `close`.
        parallel: So many rows at a time.
        cells: For all of them.

    Raises:
        NotBatchable: The model is as it was.
    """

    def __init__(self, loaded: LoadedModel, parallel: int, cells: int) -> None:
        self._config = loaded.model.config.get_text_config(decoder=True)
        self._windows = _windows(loaded.model, self._config)
        super().__init__(loaded)
        if self._cache_name is None:
            raise NotBatchable("it takes no cache by a name that is known here")
        self.parallel = parallel
        self._attention = AttentionHook(loaded.model, loaded.attention)
        try:
            self._cache = KVCache(self._shapes(), parallel, cells)
        except NotBatchable:
            self.close()
            raise
        except Missing as exc:
            self.close()
            raise NotBatchable(str(exc)) from exc
        except Exception as exc:
            # Whatever an unknown model's code makes of our cache and attention.
            self.close()
            raise NotBatchable(f"its code does not take our cache ({type(exc).__name__})") from exc

    def close(self) -> None:
        """Give the model back as it was."""
        try:
            self._attention.use(None)
        except Missing:
            return  # nor was it changed

    # ------------------------------------------------------------------ rows

    def take(
        self, prompt: Sequence[int], reserved: int, adapters: AdapterChoice = NO_ADAPTERS
    ) -> Row | None:
        """See `Session`."""
        with torch.inference_mode():
            return self._cache.take(prompt, reserved, adapters)

    def give_back(self, row: Row) -> None:
        """See `Session`."""
        self._cache.give_back(row)

    def leave(self, row: Row) -> None:
        """See `Session`."""
        with torch.inference_mode():
            self._cache.leave(row)

    def drop(self, row: Row) -> None:
        """See `Session`."""
        with torch.inference_mode():
            self._cache.drop(row)

    def forward(
        self, works: Sequence[tuple[Row, Sequence[int]]], abort: Callable[[], bool] | None = None
    ) -> Tensor:
        """See `Session`."""
        with self._computing(abort):
            self._cache.ensure(max(row.length + len(tokens) for row, tokens in works))
            # Rows that generate go first and in the order of their slots: they attend together.
            order = sorted(range(len(works)), key=lambda i: _rank(*works[i]))
            ordered = [attention.Work(*works[i]) for i in order]
            try:
                logits = self._run(ordered)
            except Aborted:
                for row, tokens in works:
                    self._cache.clear(row, len(tokens))
                raise
            if order != list(range(len(works))):
                back = torch.tensor(order, device=logits.device).argsort()
                logits = logits[back]
        for row, tokens in works:
            row.tokens += tokens
        return logits

    def _run(self, works: Sequence[attention.Work]) -> Tensor:
        """The logits behind each row's last token, `(rows, vocabulary)`, in the rows' order."""
        rows = attention.RowsPass(self._cache, works, self._windows, self._device)
        tokens = [token for work in works for token in work.tokens]
        ids = torch.tensor([tokens], device=self._device)  # (1, T)
        wanted = None
        if len(tokens) != len(works):
            ends = itertools.accumulate(len(work.tokens) for work in works)
            wanted = torch.tensor([end - 1 for end in ends], device=self._device)  # (rows,)
        given: dict[str, Any] = {str(self._cache_name): rows, "use_cache": True}
        if self._keeps_logits:
            given["logits_to_keep"] = 0 if wanted is None else wanted
        attention.begin(rows)
        try:
            output = self._model(input_ids=ids, position_ids=rows.positions[None], **given)
        finally:
            attention.end()
        if not rows.attended:
            raise NotBatchable("its attention cannot be replaced")
        logits: Tensor = output.logits[0]
        return logits if wanted is None or self._keeps_logits else logits[wanted]

    # ------------------------------------------------------------------ trying

    def _shapes(self) -> list[LayerShape]:
        """What the layers keep of a token, known or found out; from here on attention is ours.

        Raises:
            NotBatchable: Rows together do not get what each would get alone.
            Missing: What is needed of transformers is not there.
        """
        trials = Trials(self.loaded)
        if (known := trials.find(len(self._windows))) is not None:
            self._attention.use(attention.NAME)
            return known
        own, shapes = self._probe()
        self._attention.use(attention.NAME)
        for logits, ends in self._try(shapes):
            if not close(logits, own[ends], self.loaded.quantization):
                raise NotBatchable("its attention is of a kind that is not known here")
        trials.keep(shapes)
        return shapes

    def _probe(self) -> tuple[Tensor, list[LayerShape]]:
        """The model's own logits of a few tokens, `(T, vocabulary)`, and what its layers keep."""
        own_cache = cache.new_cache(self._model.config)
        given = {str(self._cache_name): own_cache, "use_cache": True}
        with torch.inference_mode():
            ids = torch.tensor([probe_tokens(self._config)], device=self._device)
            logits: Tensor = self._model(input_ids=ids, **given).logits[0]
        shapes = []
        for keys, values in cache.keys_and_values(own_cache):  # (1, H, T, D)
            if keys.dim() != 4:
                raise NotBatchable("its cache is not keys and values of every layer")
            if keys.shape[:3] != values.shape[:3]:
                raise NotBatchable("its keys and values have different numbers of heads")
            _, heads, _, key_dim = keys.shape
            shapes.append(LayerShape(heads, key_dim, values.shape[3], keys.dtype, keys.device))
        return logits, shapes

    def _try(self, shapes: list[LayerShape]) -> list[tuple[Tensor, list[int]]]:
        """Logits of rows in all the ways of computing them together, and of which tokens."""
        tokens = probe_tokens(self._config)
        self._cache = KVCache(shapes, 3, 3 * PROBE_TOKENS)
        rows = [row for _ in range(3) if (row := self.take(tokens[:1], PROBE_TOKENS))]
        tried = []
        # Three beginnings; then a chunk behind one, and a token each behind two of them.
        for counts in ((3, 2, 4), (2, 1, 1)):
            works = [
                (row, tokens[row.length : row.length + count])
                for row, count in zip(rows, counts, strict=True)
            ]
            logits = self.forward(works)
            tried.append((logits, [row.length - 1 for row in rows]))
        return tried


def _windows(model: Any, config: Any) -> list[int | None]:
    """How far back each layer looks; None is everything.

    Raises:
        NotBatchable: There are layers of other kinds.
    """
    if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
        raise NotBatchable("its layers lie on several devices")
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    other = sorted(set(kinds) - _KNOWN_LAYERS)
    if other or getattr(config, "attention_chunk_size", None):
        raise NotBatchable(f"it has layers of another kind ({(other or ['chunked'])[0]})")
    if any(name in str(getattr(config, "rope_parameters", "")) for name in _SHARED_ROPE):
        raise NotBatchable("its positions are scaled by the longest row")
    try:
        return cache.windows(model.config)
    except Missing as exc:
        raise NotBatchable(str(exc)) from exc


def _rank(row: Row, tokens: Sequence[int]) -> tuple[bool, int]:
    """Sorts rows that generate before chunks of prompts, and each by their slots."""
    return len(tokens) > 1 or row.length == 0, row.slot
