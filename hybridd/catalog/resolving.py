"""Which model a name means, without holding the loop while very many are compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import trio

from hybridd.core import naming
from hybridd.core.model import ModelRecord

# Taking ten thousand names to pieces takes 100 ms; so many take the loop's time themselves.
FEW = 1000


async def resolve(
    query: str,
    models: Mapping[str, ModelRecord],
    loaded_ids: Collection[str],
    fits: Callable[[str], bool] | None,
) -> str:
    """As `core.naming.resolve`; `fits` is asked in the loop's own thread only."""
    if query in models or len(models) < FEW or fits is not None:
        return naming.resolve(query, models, loaded_ids, fits)
    compare = partial(naming.resolve, query, models, frozenset(loaded_ids))
    return await trio.to_thread.run_sync(compare, abandon_on_cancel=True)
