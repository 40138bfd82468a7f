"""The engine of embedding models and cross-encoders."""

from __future__ import annotations

from collections.abc import Sequence

from hybridd.backends.api import LoadedFacts, LoadSpec, Output, Report
from hybridd.backends.engine.base import ActiveSequence, ServingEngine
from hybridd.backends.engine.output.generation import Generation
from hybridd.backends.engine.prompts import Prompts
from hybridd.core.model import Facts
from hybridd.wire.errors import Unsupported

from ..compat.imports import torch, version
from ..tokens.vocabulary import Vocabulary
from ..weights.load_options import LoadOptions
from ..weights.loading import in_force
from ..weights.memory import keep_memory
from .encoder import load_encoder


class EncoderEngine(ServingEngine[ActiveSequence]):
    """See `api.Engine`; it takes `embed` or `rerank`, and what needs the tokenizer alone.

    Args:
        facts: Of the files that are to be loaded.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """See `api.Engine`."""
        options = LoadOptions.from_wire(spec["load_options"])
        encoder = load_encoder(spec, self._facts, options, report)
        opened = encoder.opened
        keep_memory()
        size = int(getattr(opened.config.get_text_config(), "vocab_size", 0))
        self._serve_encoder(
            encoder, Prompts(Vocabulary(opened.tokenizer, size), None, "huggingface")
        )
        return LoadedFacts(
            engine=version(),
            context_length=encoder.context_length,
            parallel=encoder.batch_inputs,
            load_options={
                **in_force(opened),
                "context_length": encoder.context_length,
                "parallel": encoder.batch_inputs,
                "ubatch_size": encoder.batch_tokens,
            },
            memory={"weights_bytes": opened.weights_bytes},
            capabilities=list(encoder.capabilities),
            notes=opened.notes,
        )

    def set_threads(self, count: int) -> None:
        """See `api.Engine`."""
        torch.set_num_threads(count)

    def close(self) -> None:
        """Let go of everything; the process ends soon after."""
        self._encoding = None

    def _begin(self, generation: Generation, prompt: list[int]) -> ActiveSequence:
        raise Unsupported(
            "this model generates no text", capability="completion", format="huggingface"
        )

    def _advance(self, active: Sequence[ActiveSequence]) -> list[Output]:
        return []

    def _release(self, sequence: ActiveSequence) -> None:
        """Nothing has a slot here."""
