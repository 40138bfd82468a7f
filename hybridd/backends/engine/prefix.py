"""When a prompt goes on from what another sequence has in the KV cache: the rule of every engine.

What a request leaves in the cache is *kept* for later prompts that begin alike.

1. Only what was computed with the same adapters counts, and of that the longest beginning which
   the prompt has in common with it. One token of the prompt at least is left to compute: its
   logits are wanted (`shared_tokens`).
2. A kept sequence is taken over, together with its cells, if that keeps most of what it holds
   (`keeps_most`). The prompt is then the next turn of the same conversation.
3. Otherwise the beginning is copied and the conversation that it belongs to stays. So it is with a
   sequence that is at work. A copy has to save a number of tokens at least, which is measured and
   differs: a format names its own (`least`).

Pure. Where the cells are, and whether they can be cut or copied, an engine knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

# Of what a sequence holds; below it, taking it over would cost another conversation more than it
# saves this one.
_KEPT_SHARE = 0.5

# Both arrays or both lists: slices of different kinds are never equal.
Tokens = TypeVar("Tokens", bound=Sequence[int])


def common_prefix(one: Tokens, other: Tokens) -> int:
    """How many tokens at the beginning are equal.

    By halves, since comparing slices is done in C: a long conversation has many thousand tokens.
    """
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    # one[:low] == other[:low], and one[:high] != other[:high]
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def shared_tokens(held: Tokens, prompt: Tokens) -> int:
    """How many tokens of a prompt need not be computed by a sequence that holds these."""
    return min(common_prefix(held, prompt), max(0, len(prompt) - 1))


def keeps_most(shared: int, held: int) -> bool:
    """Whether a sequence of `held` tokens that is cut back to `shared` keeps most of them."""
    return shared > 0 and shared >= _KEPT_SHARE * held


def worth_copying(shared: int, otherwise: int, least: int) -> bool:
    """Whether a copy of `shared` tokens saves enough.

    Args:
        otherwise: Tokens that need not be computed without it.
        least: So many it has to save; below that a copy takes as long as computing them.
    """
    return shared >= otherwise + least
