"""The Hugging Face engine: transformers' models under a loop of our own.

One step is one forward pass: a token for every request that generates, and beside them one chunk
of the prompts that are waiting, so that a long prompt holds up the others by a chunk at most.
Requests with different adapters have passes of their own in each step, and so has each request of
a model that cannot compute several together. `generate` of transformers is not used: it has no
place where a request could come or go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybridd.backends.api import LoadedFacts, LoadSpec, Output, Report
from hybridd.backends.engine.adapters import AdapterChoice
from hybridd.backends.engine.base import ActiveSequence, ServingEngine
from hybridd.backends.engine.failures import work_failure
from hybridd.backends.engine.not_finite import NotFinite
from hybridd.backends.engine.output.generation import Generation
from hybridd.backends.engine.passes import Aborted, give_up_when
from hybridd.backends.engine.prompts import Prompts

from .compat.imports import Tensor, torch, version
from .compat.leaning import Missing
from .compat.onednn import Products
from .forward.batched import BatchSession, NotBatchable
from .forward.kv_cache import Row
from .forward.peft_adapters import Adapters
from .forward.prefill_budget import Pace
from .forward.seq2seq import Seq2SeqSession
from .forward.sequential import SoloSession
from .forward.session import Session
from .forward.vision_session import VisionBatchSession, VisionSession
from .tokens.picture_prompts import PicturePrompts, TextPrompts
from .tokens.pictures import PictureVocabulary
from .tokens.sampling import NOT_FINITE, Sampler, choose
from .tokens.vocabulary import check_embedded, embedded
from .weights import loading, onednn_weights
from .weights.load_options import LoadOptions
from .weights.memory import keep_memory


class _Sequence(ActiveSequence):
    """A generation with its sampler and its row.

    Attributes:
        processed: How many of the prompt's tokens the model has seen.
        pending: The last sampled token, which the model has not seen yet.
    """

    def __init__(
        self, generation: Generation, prompt: list[int], sampler: Sampler, row: Row
    ) -> None:
        super().__init__(generation, prompt)
        self.sampler = sampler
        self.row = row
        self.pending = 0
        self.processed = generation.cached_tokens = row.length

    @property
    def in_prompt(self) -> bool:
        """Whether a part of the prompt was not processed yet."""
        return self.processed < len(self.prompt)


@dataclass
class _Pass:
    """What one forward pass computes.

    Attributes:
        generating: They get a token each.
        chunks: Parts of prompts.
    """

    generating: list[_Sequence] = field(default_factory=list)
    chunks: list[tuple[_Sequence, list[int]]] = field(default_factory=list)

    @property
    def sequences(self) -> list[_Sequence]:
        return [*self.generating, *(sequence for sequence, _ in self.chunks)]


class HuggingFaceEngine(ServingEngine[_Sequence]):
    """See `api.Engine`."""

    def __init__(self) -> None:
        super().__init__()
        self._loaded: loading.LoadedModel | None = None
        self._session: Session | None = None
        self._adapters: Adapters | None = None
        self._chunk = 1
        self._pace = Pace()
        self._embedded: int | None = None

    # ------------------------------------------------------------------ loading

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """See `api.Engine`."""
        options = LoadOptions.from_wire(spec["load_options"])
        loaded = self._loaded = loading.load(spec, options, report)
        adapters = {one["name"]: Path(one["path"]) for one in spec.get("adapters", ())}
        packed = options.mmap is not True and _packed(loaded, bool(adapters), report)
        cells = options.kv_cells or loaded.context_length * options.parallel
        self._adapters = Adapters(loaded.model, adapters)
        session = self._session = _open_session(loaded, options.parallel, cells)
        loaded.notes.extend([*self._adapters.notes, *session.notes])
        self._chunk = options.chunk if session.divisible else loaded.context_length
        context_length = min(loaded.context_length, cells)
        self._embedded = embedded(loaded.model)
        prompts = _prompts(loaded)
        self._serve(prompts, context_length, session.parallel)
        keep_memory()
        return LoadedFacts(
            engine=version(),
            context_length=context_length,
            parallel=session.parallel,
            load_options={
                "context_length": context_length,
                "parallel": session.parallel,
                "kv_cells": cells,
                "device": options.device,
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "quantization": loaded.quantization,
                "batch_size": options.chunk,
                "threads": loaded.threads,
                # What was asked for is in force, also where there was nothing to pack.
                "mmap": not packed if options.mmap is None else options.mmap,
            },
            memory={"weights_bytes": loaded.weights_bytes},
            capabilities=prompts.capabilities,
            notes=loaded.notes,
        )

    def close(self) -> None:
        """Let go of everything."""
        self.active.clear()
        self._loaded = self._session = self._adapters = None

    def set_threads(self, count: int) -> None:
        """See `api.Engine`."""
        torch.set_num_threads(count)

    # ------------------------------------------------------------------ serving

    def _begin(self, generation: Generation, prompt: list[int]) -> _Sequence | None:
        loaded, session = self._up()
        options = generation.options
        pictures = loaded.pictures.placeholders if loaded.pictures else ()
        check_embedded(prompt, self._embedded, "prompt", pictures)
        remaining = self._context_length - len(prompt)
        wanted = remaining if options.max_tokens is None else min(options.max_tokens, remaining)
        assert self._adapters is not None
        adapters = self._adapters.choose(options.adapters)
        row = session.take(prompt, len(prompt) + max(1, wanted), adapters)
        if row is None:
            return None
        try:
            sampler = Sampler(options, prompt, sorted(loaded.end_tokens), loaded.vocabulary)
        except BaseException:
            session.give_back(row)
            raise
        return _Sequence(generation, prompt, sampler, row)

    def _release(self, sequence: _Sequence) -> None:
        _, session = self._up()
        if sequence.spoiled:
            session.drop(sequence.row)
        elif sequence.in_prompt:
            session.leave(sequence.row)
        else:
            session.give_back(sequence.row)

    def _advance(self, active: Sequence[_Sequence]) -> list[Output]:
        return [output for work in self._passes(active) for output in self._apart(work)]

    def _passes(self, active: Sequence[_Sequence]) -> list[_Pass]:
        """What is computed together in this step: sequences that have the same adapters."""
        _, session = self._up()
        generating = [s for s in active if not s.in_prompt]
        waiting = [s for s in active if s.in_prompt]
        if session.reason is not None:
            singly = [_Pass([sequence]) for sequence in generating]
            return singly + [_Pass([], self._chunks([sequence], False)) for sequence in waiting]
        passes: dict[AdapterChoice, _Pass] = {}
        alone: list[_Pass] = []
        for sequence in generating:
            passes.setdefault(sequence.row.adapters, _Pass()).generating.append(sequence)
        for sequence, tokens in self._chunks(waiting, bool(generating)):
            if sequence.row.whole:
                alone.append(_Pass([], [(sequence, tokens)]))
                continue
            work = passes.setdefault(sequence.row.adapters, _Pass())
            work.chunks.append((sequence, tokens))
        return [*passes.values(), *alone]

    def _apart(self, work: _Pass) -> list[Output]:
        """A pass that concerns no others, whatever comes of it."""
        try:
            return self._pass(work)
        except Exception as exc:
            error = work_failure(exc)
            for sequence in work.sequences:
                sequence.spoiled = True
            return [sequence.generation.fail(error) for sequence in work.sequences]

    def _pass(self, work: _Pass) -> list[Output]:
        """One forward pass; all in it get further, or none when it is interrupted."""
        _, session = self._up()
        generating, chunks = work.generating, work.chunks
        works = [(s.row, [s.pending]) for s in generating]
        works += [(sequence.row, tokens) for sequence, tokens in chunks]
        prompts = [(sequence.id, len(tokens)) for sequence, tokens in chunks]
        prompt_tokens = sum(count for _, count in prompts)
        abort = give_up_when(prompts, len(generating) + prompt_tokens, self._interrupted)
        assert self._adapters is not None
        self._adapters.use(works[0][0].adapters)
        try:
            with self._pace.measured(prompt_tokens):
                logits = session.forward(works, abort)
        except Aborted:
            # The cancel itself is in the loop's queue and comes before the next step.
            return []
        outputs: list[Output] = []
        ready = list(enumerate(generating))
        for i, (sequence, tokens) in enumerate(chunks, len(generating)):
            sequence.processed += len(tokens)
            if sequence.in_prompt:
                continue
            ended = sequence.generation.prefilled()
            if ended is not None and not bool(logits[i].max().isfinite()):
                sequence.spoiled = True
                outputs.append(sequence.generation.fail(NotFinite()))
            elif ended is not None:
                outputs.append(ended)
            else:
                ready.append((i, sequence))
        return outputs + self._next(ready, logits)

    def _chunks(
        self, waiting: Sequence[_Sequence], shared: bool
    ) -> list[tuple[_Sequence, list[int]]]:
        """What of the prompts goes into one step; the first in line goes first.

        One that has to be computed in one pass may be more than the others should wait for, but
        then it is the last.
        """
        left = min(self._chunk, self._pace.chunk) if shared else self._chunk
        chunks = []
        for sequence in waiting:
            if left <= 0:
                break
            room = len(sequence.prompt) if sequence.row.whole else left
            tokens = sequence.prompt[sequence.processed : sequence.processed + room]
            chunks.append((sequence, tokens))
            left -= len(tokens)
        return chunks

    def _next(self, ready: Sequence[tuple[int, _Sequence]], logits: Tensor) -> list[Output]:
        """The next token of each sequence, from its row of the logits, `(rows, vocabulary)`."""
        loaded, _ = self._up()
        if not ready:
            return []
        if len(ready) != len(logits):
            logits = logits[[i for i, _ in ready]]
        tokens = choose([sequence.sampler for _, sequence in ready], logits)
        outputs = []
        for i, ((_, sequence), token) in enumerate(zip(ready, tokens, strict=True)):
            if token == NOT_FINITE:
                sequence.spoiled = True
                outputs.append(sequence.generation.fail(NotFinite()))
                continue
            sequence.pending, generation = token, sequence.generation
            if token in loaded.end_tokens:
                outputs.append(generation.end_of_text())
                continue
            logprobs = sequence.sampler.logprobs(logits[i], token)
            begins = loaded.model.config.is_encoder_decoder and not generation.completion_tokens
            words = loaded.vocabulary
            piece = words.first_piece(token) if begins else words.piece(token)
            outputs.append(generation.accept(piece, logprobs))
        return outputs

    def _up(self) -> tuple[loading.LoadedModel, Session]:
        assert self._loaded is not None
        assert self._session is not None
        return self._loaded, self._session


def _packed(loaded: loading.LoadedModel, adapted: bool, report: Report) -> bool:
    """Pack the weights where that is of use and can be, else note why not.

    Args:
        adapted: There are to be adapters around the layers.
    """
    # Packed matrices are of no use to kernels of quantized ones, nor to adapters.
    if loaded.quantization != "none" or not onednn_weights.worthwhile(
        loaded.model, loaded.device, loaded.weights_bytes
    ):
        return False
    if adapted:
        loaded.notes.append("weights are not packed: adapters compute with them as they are")
        return False
    try:
        products = Products(onednn_weights.DTYPE)
    except Missing as exc:
        loaded.notes.append(str(exc))
        return False
    onednn_weights.pack(loaded.model, products, report)
    return True


def _prompts(loaded: loading.LoadedModel) -> Prompts:
    """Prompts of texts, or with pictures where the model and what is installed allow them."""
    vocabulary = loaded.vocabulary
    if loaded.pictures is not None:
        assert isinstance(vocabulary, PictureVocabulary)
        return PicturePrompts(vocabulary, loaded.pictures)
    if loaded.pictures_problem is not None:
        return TextPrompts(vocabulary, loaded.pictures_problem)
    return Prompts(vocabulary, vocabulary.chat_template(), "huggingface")


def _open_session(loaded: loading.LoadedModel, parallel: int, cells: int) -> Session:
    """Rows together where the model can, else by turns; its notes say why."""
    if loaded.model.config.is_encoder_decoder:
        return Seq2SeqSession(loaded, parallel)
    together, by_turns = BatchSession, SoloSession
    if loaded.pictures is not None:
        together, by_turns = VisionBatchSession, VisionSession
    try:
        return together(loaded, parallel, cells)
    except NotBatchable as exc:
        return by_turns(loaded, parallel, cells, str(exc))
