"""Embeddings and reranking, the same for every engine: requests in, batches, vectors out.

An engine supplies an `Encoder`: how its model tokenizes a text and what it computes of a batch.
`EncoderQueue` makes batches of what was asked for, one for each step of the engine, so that
cancels and other requests are heard between two of them, and small requests need not wait for the
end of a large one: requests take turns, and a batch is filled up with what others wait for.

Vectors leave the worker as JSON text: the daemon passes them on as they are, since reading and
writing a million numbers would hold its loop for a second.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import mul
from typing import Any, NamedTuple, Protocol

from hybridd.backends.api import Output, WorkRequest
from hybridd.core.kinds import KINDS
from hybridd.wire.errors import ContextExceeded, InvalidParams, Unsupported

from .failures import work_failure
from .not_finite import NotFinite
from .passes import Aborted

__all__ = ["Aborted", "Encoder", "EncoderQueue", "Input", "to_json"]

# Characters that one step tokenizes: some milliseconds, after which a cancel is heard again.
_TOKENIZED_CHARS = 64 * 1024
# A sign, nine digits, a point, an exponent of four characters and a comma.
_NUMBER_BYTES = 16
# What a worker's frame may have (`worker.channel`), less what is around the numbers.
MAX_RESULT_NUMBERS = (64 * 1024 * 1024 - 64 * 1024) // _NUMBER_BYTES
# Shorter inputs than this part of a batch's longest one wait for another batch: padded to its
# length they would cost more than they save.
_SHORTEST_SHARE = 0.5


class Input(NamedTuple):
    """One text, or a pair of texts, as its model wants it, with all special tokens.

    Attributes:
        tokens: Their ids.
        types: Which of the two texts each belongs to; empty for models that do not ask.
    """

    tokens: list[int]
    types: Sequence[int] = ()


class Encoder(Protocol):
    """What an engine knows of a model that embeds or reranks.

    Attributes:
        capabilities: `embedding`, `reranking` or both.
        dimensions: Of a vector, before any truncation; 0 where it makes none.
        context_length: Tokens that one input may have.
        batch_tokens: Tokens of one batch, counted as inputs times the longest one.
        batch_inputs: Inputs of one batch.
    """

    capabilities: Sequence[str]
    dimensions: int
    context_length: int
    batch_tokens: int
    batch_inputs: int

    def tokenize(self, text: str) -> Input:
        """One text with the special tokens that the model was trained with."""
        ...

    def tokenize_pair(self, query: str, document: str) -> Input:
        """A question and a text that may answer it, as the model was trained to see them."""
        ...

    def vectors(
        self, batch: Sequence[Input], abort: Callable[[], bool]
    ) -> Sequence[Sequence[float]]:
        """One vector of `dimensions` for each input, not normalized by us.

        Raises:
            Aborted: `abort`, which is cheap, said so.
        """
        ...

    def scores(self, batch: Sequence[Input], abort: Callable[[], bool]) -> Sequence[float]:
        """How well each pair fits; more is better.

        Raises:
            Aborted: `abort` said so.
        """
        ...


def to_json(values: Sequence[float]) -> str:
    """Numbers of single precision as JSON text; nine digits tell any two of them apart.

    Raises:
        NotFinite: JSON cannot carry those.
    """
    if not all(map(math.isfinite, values)):
        raise NotFinite
    return "[" + ",".join(["%.9g" % value for value in values]) + "]"  # noqa: UP031 - twice as fast


def _normalized(vector: Sequence[float]) -> Sequence[float]:
    """The vector with length 1; one of zeros stays as it is."""
    norm = math.sqrt(math.fsum(map(mul, vector, vector)))
    return [value / norm for value in vector] if norm > 0 else vector


@dataclass
class _Job:
    """One request.

    Attributes:
        dimensions: Of the vectors asked for; 0 for scores.
        untokenized: Index and text of what was not looked at yet, the next one last.
        pending: Indexes of inputs that were not computed, the shortest first.
        results: By index: a vector's JSON text, or a score.
    """

    id: int
    kind: str
    query: str
    dimensions: int
    normalize: bool
    top_n: int
    untokenized: list[tuple[int, str]]
    inputs: list[Input]
    results: list[Any]
    pending: list[int] = field(default_factory=list)
    tokens: int = 0

    def length(self, index: int) -> int:
        """Tokens of an input."""
        return len(self.inputs[index].tokens)


class EncoderQueue:
    """The requests of one encoder, from their arrival to their result.

    Args:
        encoder: The engine's.
        format_name: For errors.
        interrupted: As `api.Engine.set_interrupted` gets it.
    """

    def __init__(
        self, encoder: Encoder, format_name: str, interrupted: Callable[[int], bool]
    ) -> None:
        self._encoder = encoder
        self._format = format_name
        self._interrupted = interrupted
        self._jobs: deque[_Job] = deque()

    @property
    def busy(self) -> bool:
        """Whether anything waits."""
        return bool(self._jobs)

    def cancel(self, request_id: int) -> None:
        """Forget a request; unknown ids are ignored."""
        self._jobs = deque(job for job in self._jobs if job.id != request_id)

    def take(self, request: WorkRequest) -> list[Output]:
        """Queue a request, or answer it with an error at once."""
        try:
            self._jobs.append(self._job(request))
        except Exception as exc:
            return [Output(id=request["id"], error=work_failure(exc).to_wire())]
        return []

    def step(self) -> list[Output]:
        """Tokenize a part of the next request, or compute one batch that begins with it."""
        if not self._jobs:
            return []
        job = self._jobs[0]
        self._jobs.rotate(-1)
        if job.untokenized:
            try:
                self._tokenize(job)
            except Exception as exc:
                return [self._failed(job, exc)]
            return []
        return self._compute(self._batch(job))

    # ------------------------------------------------------------------ a request

    def _job(self, request: WorkRequest) -> _Job:
        kind = request["kind"]
        capability = str(KINDS[kind].capability)
        if capability not in self._encoder.capabilities:
            raise Unsupported(
                f"this model cannot {kind}; it has no {capability}",
                capability=capability,
                format=self._format,
            )
        texts = request["input"] if kind == "embed" else request["documents"]
        if not texts:
            name = "input" if kind == "embed" else "documents"
            raise InvalidParams(f"{name} takes at least one text", field=name, reason="empty")
        dimensions = self._dimensions(request.get("dimensions"), len(texts), kind)
        return _Job(
            id=request["id"],
            kind=kind,
            query=request.get("query", ""),
            dimensions=dimensions,
            normalize=request.get("normalize", True),
            top_n=request.get("top_n") or len(texts),
            untokenized=list(enumerate(texts))[::-1],
            inputs=[Input([])] * len(texts),
            results=[None] * len(texts),
        )

    def _dimensions(self, wanted: int | None, texts: int, kind: str) -> int:
        if kind != "embed":
            return 0
        has = self._encoder.dimensions
        if wanted is not None and wanted > has:
            raise InvalidParams(
                f"the model's vectors have {has} dimensions, {wanted} were asked for",
                field="dimensions",
                reason=f"more than {has}",
            )
        dimensions = wanted or has
        if texts * dimensions > MAX_RESULT_NUMBERS:
            most = MAX_RESULT_NUMBERS // dimensions
            raise InvalidParams(
                f"one request may have at most {most} texts with vectors of {dimensions} "
                f"dimensions, and this one has {texts}; send them in several",
                field="input",
                reason=f"more than {most}",
            )
        return dimensions

    def _tokenize(self, job: _Job) -> None:
        """Go on with a request's texts; the last ones make it ready to be computed."""
        encoder, chars = self._encoder, 0
        while job.untokenized and chars < _TOKENIZED_CHARS:
            index, text = job.untokenized.pop()
            chars += len(text) + len(job.query) + 1
            tokenized = (
                encoder.tokenize(text)
                if job.kind == "embed"
                else encoder.tokenize_pair(job.query, text)
            )
            self._check(job, index, len(tokenized.tokens))
            job.inputs[index] = tokenized
            job.tokens += len(tokenized.tokens)
        if not job.untokenized:
            job.pending = sorted(range(len(job.inputs)), key=lambda i: (job.length(i), -i))

    def _check(self, job: _Job, index: int, tokens: int) -> None:
        name = "input" if job.kind == "embed" else "documents"
        if tokens == 0:
            raise InvalidParams(
                f"{name}[{index}] is empty, and the model has no token that stands for that",
                field=name,
                reason="empty",
            )
        limit = self._encoder.context_length
        if tokens > limit:
            what = "the text" if job.kind == "embed" else "query and document together"
            raise ContextExceeded(
                f"{name}[{index}] is too long: {what} made {tokens} tokens, and the model takes "
                f"{limit} at a time; cut it into several",
                prompt_tokens=tokens,
                context_length=limit,
                index=index,
            )

    # ------------------------------------------------------------------ a batch

    def _batch(self, first: _Job) -> list[_Slice]:
        """Inputs of similar length: the longest of `first`, and what fits beside it."""
        encoder = self._encoder
        longest = first.length(first.pending[-1])
        room = max(1, min(encoder.batch_inputs, encoder.batch_tokens // longest))
        batch: list[_Slice] = []
        for job in (first, *(job for job in self._jobs if job is not first)):
            if job.kind != first.kind or job.untokenized or not room:
                continue
            # The longest come last; those too long for this batch are left where they are.
            end = len(job.pending)
            while end and job.length(job.pending[end - 1]) > longest:
                end -= 1
            begin = end
            while begin > max(0, end - room):
                if job.length(job.pending[begin - 1]) < longest * _SHORTEST_SHARE:
                    break
                begin -= 1
            if begin < end:
                batch.append(_Slice(job, begin, end))
                room -= end - begin
        return batch

    def _compute(self, batch: list[_Slice]) -> list[Output]:
        ids = [part.job.id for part in batch]

        def abort() -> bool:
            return all(map(self._interrupted, ids))

        inputs = [part.job.inputs[index] for part in batch for index in part.indexes]
        try:
            computed: Iterator[Any] = iter(
                self._encoder.vectors(inputs, abort)
                if batch[0].job.kind == "embed"
                else self._encoder.scores(inputs, abort)
            )
        except Aborted:
            # The cancels themselves are in the loop's queue and come before the next step.
            return []
        except Exception as exc:
            # Which input it was is not known; those that were not computed are not concerned.
            return [self._failed(part.job, exc) for part in batch]
        outputs = []
        for part in batch:
            values = list(islice(computed, part.end - part.begin))
            try:
                outputs += self._put(part, values)
            except Exception as exc:
                outputs.append(self._failed(part.job, exc))
        return outputs

    def _put(self, part: _Slice, values: Sequence[Any]) -> list[Output]:
        """Take over what was computed of a request; its result if that was the last of it."""
        job = part.job
        for index, value in zip(part.indexes, values, strict=True):
            job.results[index] = _vector(job, value) if job.dimensions else float(value)
            job.inputs[index] = Input([])
        del job.pending[part.begin : part.end]
        if job.pending:
            return []
        done = Output(id=job.id, done=_result(job))
        self._jobs.remove(job)
        return [done]

    def _failed(self, job: _Job, exc: Exception) -> Output:
        self._jobs.remove(job)
        return Output(id=job.id, error=work_failure(exc).to_wire())


class _Slice(NamedTuple):
    """A job's part of a batch: its pending inputs from `begin` to `end`."""

    job: _Job
    begin: int
    end: int

    @property
    def indexes(self) -> list[int]:
        """The longest first."""
        return self.job.pending[self.begin : self.end][::-1]


def _vector(job: _Job, values: Sequence[float]) -> str:
    cut = values[: job.dimensions]
    return to_json(_normalized(cut) if job.normalize else cut)


def _result(job: _Job) -> dict[str, Any]:
    usage = {"prompt_tokens": job.tokens, "total_tokens": job.tokens}
    if job.dimensions:
        return {"embeddings": job.results, "dimensions": job.dimensions, "usage": usage}
    if not all(map(math.isfinite, job.results)):
        raise NotFinite
    indexes = range(len(job.results))
    best = heapq.nsmallest(job.top_n, indexes, key=lambda i: (-job.results[i], i))
    return {"results": [{"index": i, "score": job.results[i]} for i in best], "usage": usage}
