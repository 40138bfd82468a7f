"""What becomes of NaN and infinity that a model computes: the policy of every engine.

They come of damaged weights, and of sums that are too large for a type. They last: what an
attention mask hides is multiplied by zero, and NaN times zero is NaN. So cells that hold one spoil
every sequence that is ever given them.

1. Each row that a token is chosen from is looked at, its largest logit that is: a NaN is the
   largest. Where a prompt ends without a token (`max_tokens` 0), the row that one would be chosen
   from is looked at all the same.
2. The request whose row it is fails with `NotFinite`, and no other. But where a draft was among a
   pass's rows, a wrong token of it may have made them, in any row: no request fails, no more is
   drafted for those that had drafts, and all cells are cleared and computed again.
3. Its sequence is *spoiled* (`ActiveSequence.spoiled`): its cells are never kept for a later
   prompt, and are given to no other sequence before they were set to zero.
4. What cannot be seen is not trusted: a prompt that is cancelled before its end has no logits, so
   where the cells can be looked at, they are; where they cannot, the next request that goes on
   from them finds out by 1.
"""

from __future__ import annotations

from hybridd.wire.errors import InternalError


class NotFinite(InternalError):
    """A model computed NaN or infinity where a token or a vector was to come from."""

    def __init__(self) -> None:
        super().__init__(
            "the model computed numbers that are not finite for this request; its file may be "
            "damaged, or it has to be loaded with a finer dtype, quantization or kv_cache_type",
            reason="not_finite",
        )
