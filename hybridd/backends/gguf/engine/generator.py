"""The GGUF engine: llama.cpp by its low-level functions, many requests in one batch.

A step brings every sequence forward: those that generate by a token, prompts by what is left of a
micro-batch (`cells.step_plan`). Sequences join and leave between two steps. What a request leaves
in its cells is reused by later prompts that begin alike (`cells.slots`), also when it has lost its
slot (`cells.state_cache`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hybridd.backends.api import LoadedFacts, LoadSpec, Output, Report
from hybridd.backends.cpu import threads_for
from hybridd.backends.engine.base import ServingEngine
from hybridd.backends.engine.failures import work_failure
from hybridd.backends.engine.not_finite import NotFinite
from hybridd.backends.engine.output.generation import Generation, joined
from hybridd.backends.engine.passes import Aborted, give_up_when
from hybridd.backends.engine.prompts import Prompts
from hybridd.wire.errors import Unsupported

from .. import BACKEND
from ..draft_facts import draft_rows
from .cells.cache_manager import CacheManager
from .cells.context import Context
from .cells.lora_adapters import Adapters
from .cells.persisted import PersistedStates
from .cells.sequence import GGUFSequence
from .cells.state_cache import StateCache
from .cells.step_plan import Pass, compose
from .drafting.draft_model import check_model, open_draft
from .drafting.draft_policy import Pace
from .drafting.drafter import Drafter
from .encoder import GGUFEncoder
from .notes import Outcome, notes_of
from .tokens.candidates import check_finite
from .tokens.sampling import Sampler
from .weights.llama import llama, start, version
from .weights.load_options import ALL_LAYERS, LoadOptions
from .weights.model import Model, locked_bytes


class GGUFEngine(ServingEngine[GGUFSequence]):
    """See `api.Engine`.

    Attributes:
        model: Its weights and vocabulary.
        adapters: Those that requests may name.
        context: The KV cells, of a model that generates; None before `load` and after `close`.
        cache: What manages them.
        drafter: The draft model at work, where there is one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._log = start()
        self.model = Model(self._log)
        self.adapters = Adapters(self._log)
        self.context: Context | None = None
        self.cache: CacheManager | None = None
        self._encoder: GGUFEncoder | None = None
        self.drafter: Drafter | None = None
        self._wipe = False  # a wrong draft may have left NaN in the cells: see `not_finite`
        self._threads = 0

    # ------------------------------------------------------------------ loading

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """See `api.Engine`."""
        options = LoadOptions.from_wire(spec["load_options"])
        try:
            self.model.open(spec, options, report)
            self._threads = options.threads or threads_for(self.model.weights_bytes)
            report("context", 0, 1)
            if options.draft_model:
                check_model(self.model, spec)
            encodes = self.model.encodes
            facts = self._encode(options) if encodes else self._generate(options, spec, report)
            facts["notes"] = self._notes(facts, options, spec["load_options"])
            report("context", 1, 1)
        except BaseException:
            self.close()
            raise
        return facts

    def _generate(self, options: LoadOptions, spec: LoadSpec, report: Report) -> LoadedFacts:
        # Contexts plan for the adapters that are there when they are made.
        self.adapters.open(self.model.native, options.adapters, spec.get("adapters", ()))
        rows = draft_rows(options.parallel) if options.draft_model else 0
        self.context = context = Context(self.model, options, self._threads, spec, draft_rows=rows)
        if options.draft_model:
            self.drafter = open_draft(self._log, self.model, context, options, spec, report)
        self.cache = _cache_manager(context, options, spec)
        prompts = Prompts(self.model.vocabulary, self.model.chat_template(), "gguf")
        self._serve(prompts, context.length, context.parallel)
        self.can_shift = context.can_shift
        in_force = {
            "context_length": context.length,
            "parallel": context.parallel,
            "kv_cells": context.cells,
            "batch_size": context.micro_batch,  # a step is one micro-batch
            "ubatch_size": context.micro_batch,
            "kv_cache_type": options.kv_cache_type,
            **options.rope.to_wire(),
            **({"draft_model": options.draft_model} if options.draft_model else {}),
        }
        return self._facts(in_force, options, prompts.capabilities)

    def _encode(self, options: LoadOptions) -> LoadedFacts:
        if options.adapters:
            raise Unsupported(
                "adapters change models that generate text; this one makes vectors or scores",
                capability="adapters",
                format="gguf",
            )
        self._encoder = encoder = GGUFEncoder(
            self.model.native,
            self.model.vocabulary,
            self._threads,
            options.context_length,
            options.ubatch_size,
        )
        self._serve_encoder(encoder, Prompts(self.model.vocabulary, None, "gguf"))
        in_force = {
            "context_length": encoder.context_length,
            "parallel": options.parallel,
            "ubatch_size": encoder.batch_tokens,
        }
        return self._facts(in_force, options, list(encoder.capabilities))

    def _facts(
        self, in_force: dict[str, Any], options: LoadOptions, capabilities: list[str]
    ) -> LoadedFacts:
        layers = options.layers_for(self.model.layers)
        flash = options.flash_attention
        weights = self.model.weights_bytes
        if self.drafter is not None:
            weights += self.drafter.weights_bytes
        return LoadedFacts(
            engine=version(),
            context_length=in_force["context_length"],
            parallel=in_force["parallel"],
            load_options={
                **in_force,
                "threads": self._threads,
                "gpu_layers": self.model.layers + 1 if layers == ALL_LAYERS else layers,
                "mmap": options.mmap,
                # Locking stops at the limit of the process, with a warning of llama.cpp's.
                "mlock": options.mlock and locked_bytes() >= weights,
                "flash_attention": "auto" if flash is None else flash,
                **({"tensor_split": list(options.tensor_split)} if options.splits else {}),
            },
            memory={**self._log.sizes, "weights_bytes": weights},
            capabilities=capabilities,
        )

    def _notes(
        self, facts: LoadedFacts, options: LoadOptions, asked: Mapping[str, Any]
    ) -> list[str]:
        outcome = Outcome(
            weights_bytes=facts["memory"]["weights_bytes"],
            locked_bytes=locked_bytes(),
            trained_context=self.model.trained_context,
            context_length=facts["context_length"],
            draft_length=self.drafter.length if self.drafter is not None else None,
            without_flash=self._log.without_flash,
            has_gpu=bool(llama.llama_supports_gpu_offload()),
            built_for_gpu=BACKEND.uses_gpu(),
        )
        return notes_of(asked, options, outcome)

    def set_threads(self, count: int) -> None:
        """See `api.Engine`."""
        for computing in (self.context, self._encoder):
            if computing is not None:
                computing.set_threads(min(count, self._threads))
        if self.drafter is not None:
            self.drafter.set_threads(count)

    def retire(self) -> None:
        """See `api.Engine`: conversations go to disk, if they may."""
        if self.cache is not None:
            self.cache.persist()

    def close(self) -> None:
        """See `api.Engine`."""
        for sequence in self.active:
            sequence.sampler.close()
        self.active.clear()
        self.cache = None
        if self._encoder is not None:
            self._encoder.close()
        self._encoder = None
        if self.drafter is not None:
            self.drafter.close()
        self.drafter = None
        if self.context is not None:
            self.context.close()
        self.context = None
        self.model.close()

    # ------------------------------------------------------------------ serving

    def _begin(self, generation: Generation, prompt: list[int]) -> GGUFSequence | None:
        cache = self.cache
        assert cache is not None
        adapters = self.adapters.choose(generation.options.adapters)
        if any(s.paused for s in self.active):
            return None  # paused requests wait for cells, and came before it
        if cache.can_share and any(s.will_share(prompt, adapters) for s in self.active):
            return None  # what it would compute is being computed: it is copied then
        taken = cache.take(prompt, adapters)
        if taken is None:
            return None
        slot, cached = taken
        generation.cached_tokens = cached
        pace = None
        if self.drafter is not None:
            pace, generation.draft_tokens = Pace(), 0
        try:
            sampler = Sampler(self.model.vocabulary, generation.options, prompt)
        except BaseException:
            cache.give_back(slot)
            raise
        return GGUFSequence(generation, prompt, slot, sampler, adapters, pace)

    def _release(self, sequence: GGUFSequence) -> None:
        assert self.cache is not None
        sequence.sampler.close()
        if sequence.spoiled:
            self.cache.spoil(sequence.slot)
        self.cache.give_back(sequence.slot)
        self._resume()

    def _resume(self) -> None:
        """Let those go on that gave their cells away: the first, and others that fit beside it."""
        assert self.context is not None
        room = self.context.cells - sum(len(s.tokens) for s in self.active if not s.paused)
        for i, waiting in enumerate([s for s in self.active if s.paused]):
            room -= len(waiting.tokens)
            if i > 0 and room < 0:
                return
            waiting.paused = False

    def _advance(self, active: Sequence[GGUFSequence]) -> list[Output]:
        context, cache = self.context, self.cache
        assert context is not None
        assert cache is not None
        running = [s for s in active if not s.paused]
        for sequence in running:
            if len(sequence.tokens) > context.length:
                cache.shift(sequence)
        if self.drafter is not None:
            self.drafter.propose(running, self._interrupted)
        passes = compose(
            running,
            context.micro_batch,
            unified=context.unified,
            fill_to=context.length if context.can_cut_anywhere else 0,
            tiles=context.tiles,
            in_force=self.adapters.in_force,
        )
        outputs: list[Output] = []
        for each in passes:
            try:
                outputs.extend(self._run(context, cache, each))
            except Exception as exc:
                # What other passes computed is good.
                error = work_failure(exc)
                failed = [row.sequence for row in each.rows if not row.sequence.paused]
                outputs.extend(sequence.generation.fail(error) for sequence in failed)
        return outputs

    def _run(self, context: Context, cache: CacheManager, work: Pass[GGUFSequence]) -> list[Output]:
        """Compute one pass and sample from it."""
        rows = [row for row in work.rows if not row.sequence.paused]
        if not rows:
            return []
        prompts = [(r.sequence.id, r.count) for r in rows if not r.sequence.generating]
        abort = give_up_when(prompts, sum(r.count for r in rows), self._interrupted)
        self.adapters.use(context.native, work.adapters)
        try:
            done = cache.compute(rows, work.gaps, self.active, abort)
        except Aborted:
            # The cancel itself is in the loop's queue and comes before the next step.
            return []
        drafting = [row.sequence for row, _ in done if row.sequence.draft]
        outputs: list[Output] = []
        # index: of the sequence's last row in the batch; with a draft, its rows come before it.
        for row, index in done:
            sequence = row.sequence
            if sequence.todo:
                continue  # a part of its prompt is left: nothing to sample from
            try:
                if sequence.draft:
                    self._verify(context, cache, sequence, index, outputs)
                    continue
                ended = None if sequence.started else self._start(context, sequence, index)
                outputs.append(ended or self._next(context, sequence, index))
            except NotFinite as exc:
                if drafting:
                    self._distrust(drafting)
                else:
                    sequence.spoiled = True
                    outputs.append(sequence.generation.fail(exc))
            except Exception as exc:
                cache.forget(sequence.slot)
                outputs.append(sequence.generation.fail(work_failure(exc)))
        if self._wipe:
            self._wipe = False
            cache.wipe()
        return outputs

    def _start(self, context: Context, sequence: GGUFSequence, index: int) -> Output | None:
        """Its prompt is done. An output when that is all that was asked for."""
        if sequence.generation.remaining_tokens <= 0:
            check_finite(context.logits(index))
        sequence.started = True
        return sequence.generation.prefilled()

    def _verify(
        self,
        context: Context,
        cache: CacheManager,
        sequence: GGUFSequence,
        last: int,
        outputs: list[Output],
    ) -> None:
        """Sample from a row and from those of its draft, as long as the draft was right.

        The sampler draws as it would without: once for each token that comes, from the same
        logits in the same order.
        """
        draft, drafted, sequence.draft = sequence.draft, sequence.drafted, ()
        generation, pace = sequence.generation, sequence.pace
        assert pace is not None
        assert generation.draft_tokens is not None
        generation.draft_tokens += drafted
        # Row `first + i` has the logits behind the draft's first i tokens.
        first, right, sampled = last - len(draft), 0, list[Output]()
        try:
            sampled.append(self._next(context, sequence, first))
            for token in draft:
                if generation.finished or sequence.tokens[-1] != token:
                    break
                right += 1
                generation.draft_accepted_tokens += right <= drafted
                sampled.append(self._next(context, sequence, first + right))
        finally:
            if sampled:
                outputs.append(joined(sampled))
        pace.learn(sequence.asked, min(right, drafted))
        cache.accept(sequence.slot, draft[:right])
        for wrong in range(first + right + 1, last + 1):
            check_finite(context.logits(wrong))

    def _distrust(self, drafting: Sequence[GGUFSequence]) -> None:
        """Clear the cells after this pass, and draft no more for these."""
        for sequence in drafting:
            assert sequence.pace is not None
            sequence.pace.give_up()
        self._wipe = True

    def _next(self, context: Context, sequence: GGUFSequence, index: int) -> Output:
        """Sample from the logits of a row of the last batch."""
        token = sequence.sampler.sample(context, index)
        vocabulary = self.model.vocabulary
        if vocabulary.ends(token):
            return sequence.generation.end_of_text()
        sequence.tokens.append(token)
        return sequence.generation.accept(
            vocabulary.piece(token), sequence.sampler.logprobs(context, index, token)
        )


def _cache_manager(context: Context, options: LoadOptions, spec: LoadSpec) -> CacheManager:
    """The manager of the context's cells, with what `kv.host_cache` and `kv.persist` allow them."""
    kv, whole = spec["kv"], context.recurrent
    owner = {
        "identity": spec["identity"],
        "engine": version(),
        "kv_cache_type": options.kv_cache_type,
        "flash_attention": options.flash_attention,
        "rope": asdict(options.rope),
        "unified": context.unified,
        "beyond_original": context.beyond_original,
    }
    window = context.window
    states = StateCache(kv["host_cache_bytes"], whole=whole, window=window)
    persisted = PersistedStates(
        kv["persist_dir"], kv["persist_bytes"], owner, whole=whole, window=window
    )
    return CacheManager(context, states, persisted)
