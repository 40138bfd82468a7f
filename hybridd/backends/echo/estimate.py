"""What an echo model claims to need: the file says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import Estimate, Facts

from ..arithmetic import context


def estimate(facts: Facts, load_options: Mapping[str, Any]) -> Estimate:
    """The pretended weights and nothing else, so that tests of memory have round figures."""
    parallel = load_options.get("parallel")
    if not isinstance(parallel, int):
        parallel = facts.metadata.get("parallel", 1)
    wanted = context(facts, {**load_options, "parallel": parallel})
    return Estimate(
        weights_bytes=facts.weights_bytes,
        kv_cache_bytes=0,
        compute_bytes=0,
        overhead_bytes=0,
        context_length=wanted.length,
        parallel=wanted.parallel,
    )
