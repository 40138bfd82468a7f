"""How many tokens a model can take, where its positions are learned and there are only so many."""

from __future__ import annotations

import re
from typing import Any

from hybridd.wire.errors import InvalidParams

from ..compat.imports import torch
from .load_options import LoadOptions

# Tables of learned positions in texts, as transformers' families name them.
_POSITIONS = re.compile(
    r"^(?!.*(vision|visual|image)).*\b(wpe|embed_positions|positions_embed|position_embeddings?)$"
)


def learned_length(model: Any, trained: int | None) -> int | None:
    """Tokens that a model has a learned position for; None where positions are computed.

    Args:
        trained: As `trained_length` says it: tables that are smaller are of other things.
    """
    learned = []
    for name, table in model.named_modules():
        if isinstance(table, torch.nn.Embedding) and _POSITIONS.search(name):
            # Some families' first positions are those of padding.
            spare = getattr(table, "offset", None)
            if spare is None:
                spare = 0 if table.padding_idx is None else table.padding_idx + 1
            if table.num_embeddings >= (trained or 1):
                learned.append(int(table.num_embeddings - spare))
    return min(learned, default=None)


def context_length(options: LoadOptions, model: Any, trained: int | None) -> int:
    """The context length in force.

    Args:
        trained: As `trained_length` says it. Without it nobody could ask for what there is.

    Raises:
        InvalidParams: The model has no positions for what was asked for.
    """
    wanted, learned = options.context_for(trained), learned_length(model, trained)
    if learned is None or wanted <= learned:
        return wanted
    if trained is not None and wanted > trained:
        raise InvalidParams(
            f"context_length is {wanted}, but the model has learned {learned} positions and can "
            f"compute no more; load it with a context_length of at most {learned}",
            field="load_options.context_length",
            reason=f"more than {learned}",
        )
    return learned
