"""What can be asked of a model: one table of the kinds of requests, for the daemon and engines.

A kind is the name of a method on the wire and of `WorkRequest.kind`. What its parameters are is
`rpc/methods/inference`'s business; how an engine does it is the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Mode(Enum):
    """How an engine comes to the result."""

    GENERATE = "generate"  # token by token, in a slot; text goes out as it comes
    ENCODE = "encode"  # texts in batches; the result comes at once
    ANSWER = "answer"  # by the tokenizer and the chat template alone


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request.

    Attributes:
        capability: What a model has to be capable of; None where every model is.
        lacking: What is said of a model without it, after the model's name.
        conversation: Whether messages are asked with; a generation then answers with one.
    """

    name: str
    mode: Mode
    capability: str | None = None
    lacking: str = ""
    conversation: bool = False

    @property
    def streams(self) -> bool:
        """Whether its text comes in deltas, if they are asked for."""
        return self.mode is Mode.GENERATE

    @property
    def names_model(self) -> bool:
        """Whether its result says which model gave it."""
        return self.mode is not Mode.ANSWER


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("generate", Mode.GENERATE, "completion", "generates no text"),
        Kind(
            "chat",
            Mode.GENERATE,
            "chat",
            "has no chat template; use generate with a plain prompt",
            conversation=True,
        ),
        Kind(
            "embed",
            Mode.ENCODE,
            "embedding",
            "makes no embeddings; take a model with the capability embedding",
        ),
        Kind(
            "rerank",
            Mode.ENCODE,
            "reranking",
            "is no reranker; take a model with the capability reranking",
        ),
        Kind("tokenize", Mode.ANSWER),
        Kind("detokenize", Mode.ANSWER),
        Kind("apply_template", Mode.ANSWER, "chat", "has no chat template", conversation=True),
    )
}


def of_mode(mode: Mode) -> Mapping[str, Kind]:
    """The kinds that are done in one way, by name."""
    return {name: kind for name, kind in KINDS.items() if kind.mode is mode}
