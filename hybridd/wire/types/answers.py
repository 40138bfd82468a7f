"""Records of what models answer, and what that cost."""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Usage(Record):
    """Tokens of one request.

    Attributes:
        prompt_tokens: Of the prompt.
        completion_tokens: That were generated.
        total_tokens: Both.
        cached_tokens: Of the prompt, those that did not have to be computed.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0


class Timings(Record):
    """Where the seconds of one request went.

    Attributes:
        queue_s: Waiting for a turn.
        load_s: Waiting for the model's load.
        prompt_s: Computing the prompt (prefill).
        first_token_s: From the request's arrival to its first token.
        generation_s: Generating (decode).
        total_s: From the request's arrival to its end.
        prompt_tokens_per_s: Tokens of the prompt that were computed, by `prompt_s`.
        generation_tokens_per_s: Generated tokens by `generation_s`.
        draft_tokens: Tokens that a draft model proposed.
        draft_accepted_tokens: Those of them that were right.
    """

    queue_s: float = 0.0
    load_s: float = 0.0
    prompt_s: float = 0.0
    first_token_s: float = 0.0
    generation_s: float = 0.0
    total_s: float = 0.0
    prompt_tokens_per_s: float | None = None
    generation_tokens_per_s: float | None = None
    draft_tokens: int | None = None
    draft_accepted_tokens: int | None = None


class Completion(Record):
    """The result of `generate`.

    Attributes:
        model: The full id.
        text: What was generated, without the prompt; left out with `stream`.
        finish_reason: `stop` (the model's end, or a stop string) or `length` (`max_tokens`, or the
            context is full).
        usage: Tokens.
        timings: Seconds.
        logprobs: One for each generated token, with `options.logprobs`; left out with `stream`.
    """

    model: str = ""
    text: str = ""
    finish_reason: str = ""
    usage: Usage = Usage()
    timings: Timings = Timings()
    logprobs: list[dict[str, Any]] | None = None
    _nested = {"usage": (Usage, False), "timings": (Timings, False)}


class ChatCompletion(Record):
    """The result of `chat`; `text` is the message's content.

    Attributes:
        model: The full id.
        message: The assistant's message; without content with `stream`.
        finish_reason: `stop` (the model's end, or a stop string) or `length` (`max_tokens`, or the
            context is full).
        usage: Tokens.
        timings: Seconds.
        logprobs: One for each generated token, with `options.logprobs`; left out with `stream`.
    """

    model: str = ""
    message: dict[str, Any] = {}
    finish_reason: str = ""
    usage: Usage = Usage()
    timings: Timings = Timings()
    logprobs: list[dict[str, Any]] | None = None
    _nested = {"usage": (Usage, False), "timings": (Timings, False)}

    @property
    def text(self) -> str:
        """The assistant's words."""
        return str(self.message.get("content") or "")


class Embeddings(Record):
    """The result of `embed`: one vector for each text, in their order.

    Attributes:
        model: The full id.
        embeddings: The vectors.
        dimensions: How many numbers a vector has.
        usage: Tokens.
    """

    model: str = ""
    embeddings: list[list[float]] = []
    dimensions: int = 0
    usage: Usage = Usage()
    _nested = {"usage": (Usage, False)}


class Ranked(Record):
    """One document of a `rerank`: its place in the request, and how well it fits.

    Attributes:
        index: Of the document in the request, from 0.
        score: The higher the better; of which range is the model's to say.
    """

    index: int = 0
    score: float = 0.0


class Reranking(Record):
    """The result of `rerank`, the best document first.

    Attributes:
        model: The full id.
        results: The documents, by score.
        usage: Tokens.
    """

    model: str = ""
    results: list[Ranked] = []
    usage: Usage = Usage()
    _nested = {"results": (Ranked, True), "usage": (Usage, False)}
