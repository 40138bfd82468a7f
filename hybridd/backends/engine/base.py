"""What engines with a tokenizer share: requests come in, wait for a slot, run, and leave.

A base class rather than a helper, since it is half of an `api.Engine`: the subclass loads a model
and brings sequences forward, and knows nothing of queues and kinds of requests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from hybridd.backends.api import Output, WorkRequest
from hybridd.core.kinds import Mode, of_mode
from hybridd.wire.errors import Unsupported

from .embedding import Encoder, EncoderQueue
from .failures import work_failure
from .options import GenerationOptions
from .output.generation import Generation, check_prompt, refuse_context_shift
from .prompts import Prompts

_GENERATED = of_mode(Mode.GENERATE)
_ENCODED = of_mode(Mode.ENCODE)


class ActiveSequence:
    """One generation that has a slot.

    Attributes:
        generation: Its bookkeeping.
        prompt: Its tokens.
        spoiled: What it has in the KV cache is of no use, nor harmless: see `not_finite`.
    """

    def __init__(self, generation: Generation, prompt: list[int]) -> None:
        self.generation = generation
        self.prompt = prompt
        self.spoiled = False

    @property
    def id(self) -> int:
        """The request's id."""
        return self.generation.id


S = TypeVar("S", bound=ActiveSequence)


class ServingEngine(ABC, Generic[S]):
    """The requests' side of an engine.

    `load` has to call `_serve` or `_serve_encoder` when the model is up.

    Attributes:
        active: The sequences that have a slot, in the order in which they got it.
        can_shift: Whether a generation may go on past its context (`context_shift`).
    """

    can_shift = False

    def __init__(self) -> None:
        self._prompts: Prompts | None = None
        self._encoding: EncoderQueue | None = None
        self._generates = False
        self._context_length = 0
        self._parallel = 1
        self._interrupted: Callable[[int], bool] = lambda _request_id: False
        self._arrived: list[WorkRequest] = []
        self._waiting: deque[tuple[Generation, list[int]]] = deque()
        self.active: list[S] = []

    # ------------------------------------------------------------------ for the subclass

    def _serve(self, prompts: Prompts, context_length: int, parallel: int) -> None:
        """Begin to take requests."""
        self._prompts = prompts
        self._context_length = context_length
        self._parallel = parallel
        self._generates = True

    def _serve_encoder(self, encoder: Encoder, prompts: Prompts) -> None:
        """Begin to take `embed` and `rerank`, in place of generations or beside them."""
        self._prompts = prompts
        self._encoding = EncoderQueue(encoder, prompts.format, lambda id: self._interrupted(id))

    @abstractmethod
    def _begin(self, generation: Generation, prompt: list[int]) -> S | None:
        """Give a request its slot; nothing is computed yet.

        Returns:
            None when there is no room for it beside those that are active: it is asked again,
            before any that came later.

        Raises:
            Exception: It cannot run, and has no slot: the request's error.
        """

    @abstractmethod
    def _advance(self, active: Sequence[S]) -> list[Output]:
        """Bring sequences forward by one step: a chunk of a prompt or a token for each."""

    @abstractmethod
    def _release(self, sequence: S) -> None:
        """Free the slot of a sequence that is finished, failed or cancelled."""

    # ------------------------------------------------------------------ api.Engine

    def set_interrupted(self, interrupted: Callable[[int], bool]) -> None:
        """See `api.Engine`."""
        self._interrupted = interrupted

    def retire(self) -> None:
        """See `api.Engine`; a subclass that saves something overrides this."""

    def set_threads(self, count: int) -> None:
        """See `api.Engine`; a subclass that can change its threads overrides this."""
        return

    def submit(self, request: WorkRequest) -> None:
        """Queue a request; generations start in the order they came."""
        self._arrived.append(request)

    def cancel(self, request_id: int) -> None:
        """Forget a request, waiting or active; its slot is free then."""
        self._arrived = [r for r in self._arrived if r["id"] != request_id]
        if self._encoding is not None:
            self._encoding.cancel(request_id)
        self._waiting = deque(w for w in self._waiting if w[0].id != request_id)
        for sequence in [s for s in self.active if s.id == request_id]:
            self.active.remove(sequence)
            self._release(sequence)

    @property
    def busy(self) -> bool:
        """Whether anything waits or is active."""
        encoding = self._encoding is not None and self._encoding.busy
        return bool(self._arrived or self._waiting or self.active or encoding)

    def step(self) -> Sequence[Output]:
        """Answer and admit what can be, then bring the active sequences forward."""
        outputs = self._take_arrived()
        outputs.extend(self._admit())
        if self._encoding is not None:
            outputs.extend(self._encoding.step())
        if self.active:
            try:
                outputs.extend(self._advance(self.active))
            except Exception as exc:
                # Which request was at fault cannot be said; those that wait had no part in it.
                error = work_failure(exc)
                outputs.extend(s.generation.fail(error) for s in self.active)
            for sequence in [s for s in self.active if s.generation.finished]:
                self.active.remove(sequence)
                self._release(sequence)
        return outputs

    def _take_arrived(self) -> list[Output]:
        """Answer what needs no slot; a generation's prompt is checked now, and then waits."""
        arrived, self._arrived = self._arrived, []
        return [output for request in arrived for output in self._take(request)]

    def _take(self, request: WorkRequest) -> list[Output]:
        prompts = self._prompts
        assert prompts is not None
        if request["kind"] in _ENCODED and self._encoding is not None:
            return self._encoding.take(request)
        try:
            if request["kind"] not in _GENERATED:
                return [Output(id=request["id"], done=prompts.answer(request))]
            if not self._generates:
                raise Unsupported(
                    "this model generates no text; use embed or rerank",
                    capability="completion",
                    format=prompts.format,
                )
            prompt = prompts.tokens(request)
            check_prompt(len(prompt), self._context_length)
            options = GenerationOptions.from_wire(request.get("options"))
            if not self.can_shift:
                refuse_context_shift(options, prompts.format)
            generation = Generation(request["id"], options, len(prompt), self._context_length)
            self._waiting.append((generation, prompt))
        except Exception as exc:
            # Whatever a tokenizer or a template raised, it is this request's trouble alone.
            return [Output(id=request["id"], error=work_failure(exc).to_wire())]
        return []

    def _admit(self) -> list[Output]:
        """Give slots to those that wait, in the order they came."""
        outputs: list[Output] = []
        while self._waiting and len(self.active) < self._parallel:
            generation, prompt = self._waiting[0]
            try:
                sequence = self._begin(generation, prompt)
            except Exception as exc:
                outputs.append(Output(id=generation.id, error=work_failure(exc).to_wire()))
            else:
                if sequence is None:
                    break
                generation.begin()
                self.active.append(sequence)
            self._waiting.popleft()
        return outputs
