"""Embeddings and reranking of a GGUF model: llama.cpp's pooled outputs, many sequences a batch.

The model is the engine's, loaded already; the context is our own, since a pooling type belongs to
a context and a generating one has none. Each input of a batch is a sequence; nothing is kept
between two batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hybridd.backends.engine.embedding import Input
from hybridd.backends.engine.passes import Aborted
from hybridd.wire.errors import LoadFailed, Unsupported

from .cells.batch import Batch
from .weights.llama import llama
from .weights.vocabulary import Vocabulary

# What one batch may have: more gains nothing on a processor, and costs compute buffers. llama.cpp
# takes up to 256 sequences.
_BATCH_TOKENS = 2048
_BATCH_INPUTS = 64
# Without pooling and with a long context a decoder takes this much of it.
_AUTO_CONTEXT = 8192
_ABORTED = 2  # llama.cpp's answer when the abort callback ended a batch
_NULL_TOKEN = -1


class GGUFEncoder:
    """See `embedding.Encoder`. `close` it before the model is freed.

    Args:
        model: llama.cpp's pointer.
        vocabulary: The model's.
        threads: For what the processor computes.
        context_length: The longest input that is to be taken; None leaves it to the model.
        ubatch_size: The largest batch; None leaves it to us. It is raised to the longest input,
            which a model that looks both ways has to see at once.

    Attributes:
        pooling: llama.cpp's name of the pooling in force: mean, cls, last, rank or none. With
            none, vectors are the mean of the tokens' own.

    Raises:
        LoadFailed: The context cannot be made, as there is no memory for it.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        threads: int,
        context_length: int | None = None,
        ubatch_size: int | None = None,
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        trained = int(llama.llama_model_n_ctx_train(model))
        self.context_length = min(context_length or _AUTO_CONTEXT, trained)
        # llama.cpp plans for sequences of equal length and aborts where they do not come out even.
        tokens = max(ubatch_size or _BATCH_TOKENS, self.context_length)
        self.batch_tokens = -(-tokens // _BATCH_INPUTS) * _BATCH_INPUTS
        self.batch_inputs = _BATCH_INPUTS
        self._context = self._make_context(threads)
        pooling = int(llama.llama_pooling_type(self._context))
        self.pooling = _POOLINGS.get(pooling, "none")
        ranks = self.pooling == "rank"
        self.capabilities: Sequence[str] = ("reranking",) if ranks else ("embedding",)
        self.dimensions = 0 if ranks else int(llama.llama_model_n_embd_out(model))
        self._run = _runner(model)
        self._memory = llama.llama_get_memory(self._context)  # none where nothing is remembered
        self._spoiled = False  # NaN is in it: see `not_finite`
        self._batch = Batch(self.batch_tokens)
        self._abort: Callable[[], bool] | None = None
        # ctypes keeps no reference to a callback: it has to live as long as the context.
        self._callback = llama.ggml_abort_callback(self._asked_to_abort)
        llama.llama_set_abort_callback(self._context, self._callback, None)
        self._template = _rerank_template(model) if ranks else None
        self._before, self._between, self._after = self._frame()

    def _make_context(self, threads: int) -> Any:
        params = llama.llama_context_default_params()
        params.embeddings = True
        params.pooling_type = llama.LLAMA_POOLING_TYPE_UNSPECIFIED  # the model's own
        params.n_ctx = self.batch_tokens
        params.n_batch = params.n_ubatch = self.batch_tokens
        params.n_seq_max = self.batch_inputs
        # One pool of cells: inputs of a batch differ in length.
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        context = llama.llama_init_from_model(self._model, params)
        if not context:
            raise LoadFailed(
                "the model's context could not be made; load it with a smaller context_length",
                reason="the context could not be made",
            )
        return context

    def set_threads(self, count: int) -> None:
        """Compute with this many threads from now on."""
        llama.llama_set_n_threads(self._context, count, count)

    def close(self) -> None:
        """Free the context. Safe to call twice."""
        if self._context is not None:
            llama.llama_free(self._context)
            self._context = None

    # ------------------------------------------------------------------ tokens

    def _frame(self) -> tuple[list[int], list[int], list[int]]:
        """What stands before, between and after texts: as llama.cpp and its server put it."""
        plain, whole = self._vocabulary.encode("a", False), self._with_specials(b"a")
        at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), len(whole))
        before, after = whole[:at], whole[at + len(plain) :]
        vocab = self._vocabulary.native
        eos, sep = int(llama.llama_vocab_eos(vocab)), int(llama.llama_vocab_sep(vocab))
        if int(llama.llama_vocab_type(vocab)) == llama.LLAMA_VOCAB_TYPE_WPM:
            # BERT was trained on one separator after each text; the server forgets the last one.
            return before, after, after
        between = (
            [eos if eos != _NULL_TOKEN else sep] if llama.llama_vocab_get_add_eos(vocab) else []
        )
        between += [sep] if llama.llama_vocab_get_add_sep(vocab) else []
        return before, [token for token in between if token != _NULL_TOKEN], after

    def _with_specials(self, text: bytes) -> list[int]:
        tokens = (llama.llama_token * (len(text) + 8))()
        count = llama.llama_tokenize(
            self._vocabulary.native, text, len(text), tokens, len(tokens), True, False
        )
        return list(tokens[:count])

    def tokenize(self, text: str) -> Input:
        """See `embedding.Encoder`; special tokens in the text are text."""
        return Input([*self._before, *self._vocabulary.encode(text, False), *self._after])

    def tokenize_pair(self, query: str, document: str) -> Input:
        """See `embedding.Encoder`: by the model's own template, else with separators."""
        encode = self._vocabulary.encode
        if self._template is not None:
            tokens: list[int] = []
            for kind, text in self._template:
                given = {"query": query, "document": document}.get(kind)
                tokens += encode(text, True) if given is None else encode(given, False)
            return Input(tokens)
        return Input(
            [
                *self._before,
                *encode(query, False),
                *self._between,
                *encode(document, False),
                *self._after,
            ]
        )

    # ------------------------------------------------------------------ numbers

    def vectors(self, batch: Sequence[Input], abort: Callable[[], bool]) -> list[list[float]]:
        """See `embedding.Encoder`."""
        if self.pooling == "rank":
            raise Unsupported("a reranker makes no vectors", capability="embedding", format="gguf")
        self._compute(batch, abort)
        size = self.dimensions
        if self.pooling != "none":
            pooled = llama.llama_get_embeddings_seq
            vectors = [pooled(self._context, number)[:size] for number in range(len(batch))]
        else:
            vectors, first = [], 0
            for one in batch:
                vectors.append(self._mean(first, len(one.tokens)))
                first += len(one.tokens)
        self._note(map(sum, vectors))
        return vectors

    def scores(self, batch: Sequence[Input], abort: Callable[[], bool]) -> list[float]:
        """See `embedding.Encoder`: the first of the classifier's outputs."""
        self._compute(batch, abort)
        scores = [
            float(llama.llama_get_embeddings_seq(self._context, number)[0])
            for number in range(len(batch))
        ]
        self._note(scores)
        return scores

    def _note(self, numbers: Iterable[float]) -> None:
        self._spoiled = not all(map(math.isfinite, numbers))

    def _mean(self, first: int, count: int) -> list[float]:
        size = self.dimensions
        total = [0.0] * size
        for row in range(first, first + count):
            values = llama.llama_get_embeddings_ith(self._context, row)[:size]
            total = [a + b for a, b in zip(total, values, strict=True)]
        return [value / count for value in total]

    def _compute(self, inputs: Sequence[Input], abort: Callable[[], bool]) -> None:
        batch = self._batch
        batch.clear()
        for number, one in enumerate(inputs):
            batch.add(number, one.tokens, 0, logits=True, every=True)
        if self._memory:
            llama.llama_memory_clear(self._memory, self._spoiled)
        self._abort = abort
        try:
            result = self._run(self._context, batch.native)
        finally:
            self._abort = None
        if result == _ABORTED:
            raise Aborted
        if result != 0:
            raise RuntimeError(f"llama.cpp answered {result} to a batch of {len(inputs)} inputs")

    def _asked_to_abort(self, _data: Any) -> bool:
        return self._abort is not None and self._abort()


_POOLINGS = {
    llama.LLAMA_POOLING_TYPE_MEAN: "mean",
    llama.LLAMA_POOLING_TYPE_CLS: "cls",
    llama.LLAMA_POOLING_TYPE_LAST: "last",
    llama.LLAMA_POOLING_TYPE_RANK: "rank",
}


def _runner(model: Any) -> Callable[[Any, Any], int]:
    """Which of llama.cpp's two functions runs this model's graph."""
    if llama.llama_model_has_encoder(model) and not llama.llama_model_has_decoder(model):
        return llama.llama_encode  # type: ignore[no-any-return]
    return llama.llama_decode  # type: ignore[no-any-return]


def _rerank_template(model: Any) -> list[tuple[str, str]] | None:
    """The parts of the model's own form of a pair, if it has one."""
    raw = llama.llama_model_chat_template(model, b"rerank")
    if not raw:
        return None
    return template_parts(raw.decode("utf-8", "replace"))


def template_parts(template: str) -> list[tuple[str, str]]:
    """Kind and text of a template's parts; `query` and `document` have no text of their own."""
    parts: list[tuple[str, str]] = []
    rest = template
    while rest:
        named = [(rest.find(f"{{{kind}}}"), kind) for kind in ("query", "document")]
        at, kind = min(((at, kind) for at, kind in named if at >= 0), default=(-1, ""))
        if at < 0:
            parts.append(("text", rest))
            break
        if at:
            parts.append(("text", rest[:at]))
        parts.append((kind, ""))
        rest = rest[at + len(kind) + 2 :]
    return parts
