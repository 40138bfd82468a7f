"""The GGUF engine: llama.cpp by its low-level functions.

One request at a time for now; the others wait in order. A step is one chunk of a prompt or one
token, so that a cancel is heard between two of them, and inside a chunk by llama.cpp's abort
callback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybridd.backends.api import LoadedFacts, LoadSpec, Output, Report
from hybridd.backends.generation import Generation
from hybridd.backends.prompts import Prompts
from hybridd.backends.serving import ActiveSequence, ServingEngine

from .library import start, version
from .load_options import ALL_LAYERS, LoadOptions
from .sampling import Sampler
from .session import Aborted, Session


class _Sequence(ActiveSequence):
    """A generation with its sampler and its place in the context.

    Attributes:
        position: Where the next token goes.
        pending: The last sampled token, which the model has not seen yet.
    """

    def __init__(self, generation: Generation, prompt: list[int], sampler: Sampler) -> None:
        super().__init__(generation, prompt)
        self.sampler = sampler
        self.position = 0
        self.pending = 0


class GGUFEngine(ServingEngine[_Sequence]):
    """See `api.Engine`."""

    def __init__(self) -> None:
        super().__init__()
        self._log = start()
        self._session = Session(self._log)

    # ------------------------------------------------------------------ loading

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """See `api.Engine`."""
        options = LoadOptions.from_wire(spec["load_options"])
        try:
            self._session.open(spec, options, report)
        except BaseException:
            self._session.close()
            raise
        session = self._session
        prompts = Prompts(session.vocabulary, session.chat_template(), "gguf")
        self._serve(prompts, session.context_length, parallel=1)
        return LoadedFacts(
            engine=version(),
            context_length=session.context_length,
            parallel=1,
            load_options=self._in_force(options),
            memory={**self._log.sizes, "weights_bytes": session.weights_bytes},
            capabilities=prompts.capabilities,
        )

    def _in_force(self, options: LoadOptions) -> dict[str, Any]:
        layers = options.layers_for(self._session.layers)
        return {
            "context_length": self._session.context_length,
            "parallel": 1,
            "batch_size": options.batch_size,
            "ubatch_size": options.ubatch_size,
            "threads": self._session.threads,
            "gpu_layers": self._session.layers + 1 if layers == ALL_LAYERS else layers,
            "mmap": options.mmap,
            "flash_attention": "auto"
            if options.flash_attention is None
            else options.flash_attention,
            "kv_cache_type": options.kv_cache_type,
        }

    def close(self) -> None:
        """Free the model; the process ends soon after."""
        for sequence in self._active:
            sequence.sampler.close()
        self._active.clear()
        self._session.close()

    # ------------------------------------------------------------------ serving

    def _begin(self, generation: Generation, prompt: list[int]) -> _Sequence:
        return _Sequence(
            generation, prompt, Sampler(self._session.vocabulary, generation.options, prompt)
        )

    def _release(self, sequence: _Sequence) -> None:
        sequence.sampler.close()
        self._session.forget()

    def _advance(self, active: Sequence[_Sequence]) -> list[Output]:
        sequence = active[0]
        if not sequence.in_prompt:
            self._session.decode([sequence.pending], sequence.position)
            sequence.position += 1
            return [self._next(sequence)]
        chunk = sequence.prompt[sequence.processed : sequence.processed + self._session.chunk]
        try:
            self._session.decode(chunk, sequence.position, lambda: self._interrupted(sequence.id))
        except Aborted:
            # The cancel itself is in the loop's queue and comes before the next step.
            return []
        sequence.processed += len(chunk)
        sequence.position += len(chunk)
        if sequence.in_prompt:
            return []
        ended = sequence.generation.prefilled()
        return [ended or self._next(sequence)]

    def _next(self, sequence: _Sequence) -> Output:
        """Sample from the logits of the decode before."""
        context = self._session.native
        token = sequence.sampler.sample(context, -1)
        sequence.pending = token
        vocabulary = self._session.vocabulary
        if vocabulary.ends(token):
            return sequence.generation.end_of_text()
        return sequence.generation.accept(
            vocabulary.piece(token), sequence.sampler.logprobs(context, -1, token)
        )
