"""What an ONNX model would need: its weights, until an engine says more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import Estimate, Facts

from ..arithmetic import context


def estimate(facts: Facts, load_options: Mapping[str, Any]) -> Estimate:
    """The weights alone: nothing is known of how an engine would keep its cache."""
    wanted = context(facts, load_options)
    return Estimate(
        weights_bytes=facts.weights_bytes,
        kv_cache_bytes=0,
        compute_bytes=0,
        overhead_bytes=0,
        context_length=wanted.length,
        parallel=wanted.parallel,
    )
