"""The echo engine's embeddings: a bag of words, each word a direction of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

from hybridd.backends.engine.embedding import Input
from hybridd.backends.engine.passes import Aborted

# One bit of a digest each: few enough to read in a test, many enough to tell words apart.
DIMENSIONS = 32
_BATCH_INPUTS = 8
_WORD = re.compile(r"\w+|[^\w\s]")


class EchoEncoder:
    """See `embedding.Encoder`. The same words give the same vector, in any process.

    Args:
        delay: Takes the time of a step; false when the batch is not wanted any more.
    """

    batch_tokens = 2**20
    batch_inputs = _BATCH_INPUTS

    def __init__(
        self,
        capabilities: Sequence[str],
        context_length: int,
        delay: Callable[[Callable[[], bool]], bool],
    ) -> None:
        self.capabilities = capabilities
        self.dimensions = DIMENSIONS if "embedding" in capabilities else 0
        self.context_length = context_length
        self._delay = delay

    def tokenize(self, text: str) -> Input:
        """A token is a word's hash; its upper and lower case are the same."""
        return Input([_hash(word) for word in _WORD.findall(text.casefold())])

    def tokenize_pair(self, query: str, document: str) -> Input:
        """Both texts' words, told apart by their type."""
        one, other = self.tokenize(query).tokens, self.tokenize(document).tokens
        return Input([*one, *other], [0] * len(one) + [1] * len(other))

    def vectors(self, batch: Sequence[Input], abort: Callable[[], bool]) -> list[list[float]]:
        """The sum of the words' directions."""
        self._wait(abort)
        return [_sum(text.tokens) for text in batch]

    def scores(self, batch: Sequence[Input], abort: Callable[[], bool]) -> list[float]:
        """How many of the query's words the document has, 0 to 1."""
        self._wait(abort)
        return [_overlap(pair) for pair in batch]

    def _wait(self, abort: Callable[[], bool]) -> None:
        if not self._delay(abort):
            raise Aborted


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=4).digest())


def _sum(tokens: Sequence[int]) -> list[float]:
    return [
        float(sum(1 if token >> bit & 1 else -1 for token in tokens)) for bit in range(DIMENSIONS)
    ]


def _overlap(pair: Input) -> float:
    words = [
        {t for t, of in zip(pair.tokens, pair.types, strict=True) if of == text} for text in (0, 1)
    ]
    return round(len(words[0] & words[1]) / max(1, len(words[0])), 6)
