"""What loading a GGUF model needs, by formula. The dry run that knows exactly comes later.

weights: exact, from the tensor table. KV cache: `layers * kv_heads * (k + v) * cells` in the
cache's type; a sliding window or a recurrent state needs less, so this is an upper bound.
Compute buffers: llama.cpp reserves the graph of one micro-batch; logits are made for one row of
each sequence, and with a draft model for some more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hybridd.core.model import Estimate, Facts

from ..arithmetic import Context, context, kv_heads_total
from .draft_facts import draft_rows

DEFAULT_MICRO_BATCH = 512  # llama.cpp's n_ubatch
# cache type -> (elements in a block, bytes of a block), as in `types.TENSOR_TYPES`
CACHE_TYPES = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
# Of a draft model, whatever the model's is: not every small model's heads suit quantized ones.
DRAFT_CACHE_TYPE = "f16"
CELL_BLOCK = 256
# A worker's own pages beside the model: 21 MiB private were measured after importing the binding
# and jinja2; the rest is for templates, sampler states and what the allocator keeps.
OVERHEAD_BYTES = 64 * 1024 * 1024
# A tokenizer's entries (text, score, map node) as llama.cpp holds them.
BYTES_PER_TOKEN = 250


def estimate(facts: Facts, load_options: Mapping[str, Any]) -> Estimate:
    """Bytes for a load with these (possibly partial) options; see the module for the formulas."""
    wanted = context(facts, load_options)
    wanted = wanted._replace(cells=_padded(wanted))
    return Estimate(
        weights_bytes=facts.weights_bytes,
        kv_cache_bytes=_cache_bytes(facts, load_options, wanted.cells),
        compute_bytes=_compute_bytes(facts, load_options, wanted),
        overhead_bytes=OVERHEAD_BYTES + (facts.vocab_size or 0) * BYTES_PER_TOKEN,
        context_length=wanted.length,
        parallel=wanted.parallel,
    )


def draft_estimate(facts: Facts, draft: Facts, load_options: Mapping[str, Any]) -> Estimate:
    """What a draft model adds to a load of a model with these options: see `draft_model`.

    Its context is no longer than it was trained for. It is in the same process, and so are the
    weights of a model that drafts for itself.
    """
    wanted = context(draft, load_options)
    length = min(wanted.length, draft.context_length or wanted.length)
    own = {
        **load_options,
        "context_length": length,
        "kv_cells": min(wanted.cells, length * wanted.parallel),
        "kv_cache_type": DRAFT_CACHE_TYPE,
        "draft_model": None,
    }
    alone = estimate(draft, own)
    if draft.files == facts.files:
        alone = replace(alone, weights_bytes=0)
    return replace(alone, overhead_bytes=alone.overhead_bytes - OVERHEAD_BYTES)


def _padded(wanted: Context) -> int:
    """Cells as llama.cpp makes them: in blocks, for each sequence by itself if they are streams."""
    if wanted.cells < wanted.length * wanted.parallel:
        return -(-wanted.cells // CELL_BLOCK) * CELL_BLOCK
    return -(-wanted.length // CELL_BLOCK) * CELL_BLOCK * wanted.parallel


def _cache_bytes(facts: Facts, load_options: Mapping[str, Any], cells: int) -> int:
    kind = str(load_options.get("kv_cache_type") or "f16").lower()
    block, size = CACHE_TYPES.get(kind, CACHE_TYPES["f16"])
    heads = kv_heads_total(facts)
    if heads is None:
        # No heads in the header: as if every layer kept its whole width, twice.
        elements = 2 * (facts.layers or 0) * (facts.embedding_length or 0)
    else:
        elements = heads * ((facts.head_dim_k or 0) + (facts.head_dim_v or 0))
    return -(-elements * cells * size // block)


def _compute_bytes(facts: Facts, load_options: Mapping[str, Any], wanted: Context) -> int:
    batch = load_options.get("ubatch_size") or DEFAULT_MICRO_BATCH
    batch = batch if isinstance(batch, int) else DEFAULT_MICRO_BATCH
    embedding = facts.embedding_length or 0
    # In float32: the residual stream, q, k, v and their sums; up, gate and their product.
    values = 8 * embedding + 3 * (facts.feed_forward_length or 0)
    mask = wanted.cells * 2
    scores = 0
    if load_options.get("flash_attention") is False:
        scores = wanted.cells * (facts.heads or 0) * 4
    # Logits of one row a sequence, and of drafts, computed and copied out.
    rows = wanted.parallel + (draft_rows(wanted.parallel) if load_options.get("draft_model") else 0)
    logits = 2 * rows * (facts.vocab_size or 0) * 4
    return batch * (values * 4 + mask + scores) + logits
