"""The Hugging Face engine: transformers' models under a loop of our own.

One request at a time for now; the others wait in order. A step is one chunk of a prompt or one
token. `generate` of transformers is not used: it has no place where a request could come or go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybridd.backends.api import LoadedFacts, LoadSpec, Output, Report
from hybridd.backends.generation import Generation
from hybridd.backends.prompts import Prompts
from hybridd.backends.serving import ActiveSequence, ServingEngine

from . import loading
from .library import version
from .load_options import LoadOptions
from .sampling import Sampler
from .session import Aborted, Session


class _Sequence(ActiveSequence):
    """A generation with its sampler and its cache.

    Attributes:
        pending: The last sampled token, which the model has not seen yet.
    """

    def __init__(
        self, generation: Generation, prompt: list[int], sampler: Sampler, cache: Any
    ) -> None:
        super().__init__(generation, prompt)
        self.sampler = sampler
        self.cache = cache
        self.pending = 0


class HuggingFaceEngine(ServingEngine[_Sequence]):
    """See `api.Engine`."""

    def __init__(self) -> None:
        super().__init__()
        self._loaded: loading.LoadedModel | None = None
        self._session: Session | None = None
        self._chunk = 1

    # ------------------------------------------------------------------ loading

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """See `api.Engine`."""
        options = LoadOptions.from_wire(spec["load_options"])
        self._chunk = options.chunk
        loaded = self._loaded = loading.load(spec, options, report)
        self._session = Session(loaded)
        prompts = Prompts(loaded.vocabulary, loaded.vocabulary.chat_template(), "huggingface")
        self._serve(prompts, loaded.context_length, parallel=1)
        return LoadedFacts(
            engine=version(),
            context_length=loaded.context_length,
            parallel=1,
            load_options={
                "context_length": loaded.context_length,
                "parallel": 1,
                "device": options.device,
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "quantization": "none",
                "batch_size": options.chunk,
                "threads": loaded.threads,
            },
            memory={"weights_bytes": loaded.weights_bytes},
            capabilities=prompts.capabilities,
        )

    def close(self) -> None:
        """Let go of everything; the process ends soon after."""
        self._active.clear()
        self._loaded = self._session = None

    # ------------------------------------------------------------------ serving

    def _begin(self, generation: Generation, prompt: list[int]) -> _Sequence:
        loaded, session = self._up()
        sampler = Sampler(
            generation.options, prompt, sorted(loaded.end_tokens), loaded.vocabulary.entry
        )
        return _Sequence(generation, prompt, sampler, session.new_cache())

    def _up(self) -> tuple[loading.LoadedModel, Session]:
        assert self._loaded is not None
        assert self._session is not None
        return self._loaded, self._session

    def _release(self, sequence: _Sequence) -> None:
        sequence.cache = None

    def _advance(self, active: Sequence[_Sequence]) -> list[Output]:
        sequence = active[0]
        _, session = self._up()
        if not sequence.in_prompt:
            logits = session.forward([sequence.pending], sequence.cache)
            return [self._next(sequence, logits)]
        chunk = sequence.prompt[sequence.processed : sequence.processed + self._chunk]
        try:
            logits = session.forward(chunk, sequence.cache, lambda: self._interrupted(sequence.id))
        except Aborted:
            # The cancel itself is in the loop's queue and comes before the next step.
            return []
        sequence.processed += len(chunk)
        if sequence.in_prompt:
            return []
        ended = sequence.generation.prefilled()
        return [ended or self._next(sequence, logits)]

    def _next(self, sequence: _Sequence, logits: Any) -> Output:
        loaded, _ = self._up()
        token = sequence.sampler.sample(logits)
        sequence.pending = token
        if token in loaded.end_tokens:
            return sequence.generation.end_of_text()
        return sequence.generation.accept(
            loaded.vocabulary.piece(token), sequence.sampler.logprobs(logits, token)
        )
