"""The engine that a worker makes for a Hugging Face directory: which one, its files say.

A model that goes on with a text, one that encodes texts and one that translates between two need
different loops; which of them a directory holds is known only when it is to be loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hybridd.backends.api import Engine, LoadedFacts, LoadSpec, Output, Report, WorkRequest
from hybridd.core.model import Facts

from ..estimate import ENCODES
from .encoding.encoder_engine import EncoderEngine
from .generator import HuggingFaceEngine
from .weights.loading import examine


class AnyEngine:
    """See `api.Engine`; hands everything to the engine that `load` chose."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._interrupted: Callable[[int], bool] = lambda _request_id: False

    @property
    def _chosen(self) -> Engine:
        assert self._engine is not None, "nothing was loaded"
        return self._engine

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """See `api.Engine`."""
        self._engine = _engine_for(examine(spec))
        self._engine.set_interrupted(self._interrupted)
        return self._engine.load(spec, report)

    def submit(self, request: WorkRequest) -> None:
        """See `api.Engine`."""
        self._chosen.submit(request)

    def cancel(self, request_id: int) -> None:
        """See `api.Engine`."""
        self._chosen.cancel(request_id)

    def step(self) -> Sequence[Output]:
        """See `api.Engine`."""
        return self._chosen.step()

    @property
    def busy(self) -> bool:
        """See `api.Engine`."""
        return self._engine is not None and self._engine.busy

    def set_interrupted(self, interrupted: Callable[[int], bool]) -> None:
        """See `api.Engine`."""
        self._interrupted = interrupted
        if self._engine is not None:
            self._engine.set_interrupted(interrupted)

    def set_threads(self, count: int) -> None:
        """See `api.Engine`."""
        self._chosen.set_threads(count)

    def retire(self) -> None:
        """See `api.Engine`."""
        self._chosen.retire()

    def close(self) -> None:
        """See `api.Engine`."""
        if self._engine is not None:
            self._engine.close()


def _engine_for(facts: Facts) -> Engine:
    if not ENCODES.isdisjoint(facts.capabilities):
        return EncoderEngine(facts)
    return HuggingFaceEngine()
