"""What loading a Hugging Face model needs, by formula.

weights: exact by dtype from the safetensors headers; what a CPU cannot compute in float16 is
loaded as float32 and takes twice its file. KV cache: `layers * kv_heads * (k + v) * cells` in
the dtype of the computation. Activations: those of one chunk of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import Estimate, Facts, Spread

from ..arithmetic import context, kv_heads_total
from ..bounded import whole
from .config import part

# Prompts are computed in chunks of at most this many tokens.
PREFILL_TOKENS = 512
ENCODES = frozenset({"embedding", "reranking"})
# What an encoder computes at a time, padding included.
ENCODER_TOKENS = 4096
# A worker's own pages beside the model. Measured with torch 2.13 and transformers 5.23 on a CPU:
# 164 MiB private after the imports, 254 after a first generation; a template shares some of it.
OVERHEAD_BYTES = 256 * 1024 * 1024
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
# Pictures of a request while they are made ready: `pictures.MAX_PIXELS` as read and as RGB.
PICTURES_BYTES = 32_000_000 * (4 + 3)
# A prompt with pictures is computed in one pass. Longer ones than this are seldom.
PICTURE_TOKENS = 4096
_STORED = {"F32": "float32", "F64": "float32", "F16": "float16", "BF16": "bfloat16"}
_STORED_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# Quantized at load: bits of an element with its share of scales.
_LOADED_BITS = {"int8": 8.5, "int4": 4.5}


def load_dtype(facts: Facts, load_options: Mapping[str, Any]) -> str:
    """The dtype that the model is computed in: `float32`, `float16` or `bfloat16`.

    "auto" is the stored one, except that a CPU takes float32 for float16: it has no fast
    arithmetic for it, while bfloat16 works there.
    """
    asked = load_options.get("dtype")
    if isinstance(asked, str) and asked in DTYPE_BYTES:
        return asked
    by_dtype = _by_dtype(facts)
    floats = {dtype: size for dtype, size in by_dtype.items() if dtype in _STORED}
    most = max(floats, key=lambda dtype: floats[dtype], default="BF16")
    stored = _STORED[most]
    if stored == "float16" and _on_cpu(load_options):
        return "float32"
    return stored


def estimate(facts: Facts, load_options: Mapping[str, Any]) -> Estimate:
    """Bytes for a load with these (possibly partial) options; see the module for the formulas."""
    wanted = context(facts, load_options)
    width = DTYPE_BYTES[load_dtype(facts, load_options)]
    heads = kv_heads_total(facts)
    if heads is None:
        elements = 2 * (facts.layers or 0) * (facts.embedding_length or 0)
    else:
        elements = heads * ((facts.head_dim_k or 0) + (facts.head_dim_v or 0))
    sees = "vision" in facts.capabilities
    encodes = not ENCODES.isdisjoint(facts.capabilities)
    values = 8 * (facts.embedding_length or 0) + 3 * (facts.feed_forward_length or 0)
    scores = (facts.heads or 0) * wanted.length * 4  # in float32, one row per token of a chunk
    logits = (facts.vocab_size or 0) * wanted.parallel * 8  # as computed, and again in float32
    weights_bytes = _weights_bytes(facts, load_options, width)
    kv_cache_bytes = 0 if encodes else elements * wanted.cells * width
    return Estimate(
        weights_bytes=weights_bytes,
        kv_cache_bytes=kv_cache_bytes,
        compute_bytes=ENCODER_TOKENS * (values * width + scores)
        if encodes
        else _chunk(load_options) * (values * width + scores)
        + logits
        + (_seeing_bytes(facts, wanted.length, values, width) if sees else 0),
        overhead_bytes=OVERHEAD_BYTES + (PICTURES_BYTES if sees else 0),
        context_length=wanted.length,
        parallel=wanted.parallel,
        spread=None
        if encodes or _LOADED_BITS.get(str(load_options.get("quantization")))
        else _spread(facts, weights_bytes, kv_cache_bytes, width),
    )


def _spread(facts: Facts, weights: int, kv_cache: int, width: int) -> Spread | None:
    """Parts are layers of equal size, the embedding and the output layer, as large as that.

    Quantized weights and encoder-decoders are kept together: what they do elsewhere is not known.
    """
    config = facts.metadata.get("config", {})
    together = config.get("is_encoder_decoder") is True or "quantization_config" in config
    embedding = (facts.vocab_size or 0) * (facts.embedding_length or 0) * width
    layers = weights - 2 * embedding  # the least, when the output layer is one of its own
    if together or not facts.layers or not embedding or layers <= 0:
        return None
    largest = max(embedding, -(-(weights - embedding) // facts.layers))
    return Spread(largest, kv_cache / layers)


def _seeing_bytes(facts: Facts, length: int, values: int, width: int) -> int:
    """Activations of a picture in the part that sees, and of a prompt that has it in one pass.

    Attention in one pass keeps no table of scores (torch's fused one on every device).
    """
    vision = part(facts.metadata.get("config", {}), "vision_config")
    side = whole(vision.get("image_size"), 1, 16384) or 1024
    patches = (side // (whole(vision.get("patch_size"), 1, 1024) or 14)) ** 2
    hidden = whole(vision.get("hidden_size"), 1, 65536) or 1024
    inner = whole(vision.get("intermediate_size"), 1, 262144) or 4 * hidden
    seen = patches * (8 * hidden + 3 * inner)
    return (seen + min(length, PICTURE_TOKENS) * values) * width


def _chunk(load_options: Mapping[str, Any]) -> int:
    asked = load_options.get("ubatch_size") or load_options.get("batch_size")
    return min(asked, PREFILL_TOKENS) if isinstance(asked, int) and asked > 0 else PREFILL_TOKENS


def _weights_bytes(facts: Facts, load_options: Mapping[str, Any], width: int) -> int:
    """Bytes in memory: floats in the dtype of the load, everything packed as it is stored."""
    total = 0
    for dtype, size in _by_dtype(facts).items():
        stored = _STORED_BYTES.get(dtype)
        total += size if stored is None else size // stored * width
    total = total or facts.weights_bytes
    bits = _LOADED_BITS.get(str(load_options.get("quantization")))
    if bits is None:
        return total
    said = facts.metadata.get("safetensors", {}).get("embedding_bytes", 0)
    stored = max(facts.weights_bytes, 1)
    embedding = total * said // stored
    return int(embedding + (total - embedding) / width * bits / 8)


def _by_dtype(facts: Facts) -> Mapping[str, int]:
    found = facts.metadata.get("safetensors", {}).get("bytes_by_dtype", {})
    return found if isinstance(found, Mapping) else {}


def _on_cpu(load_options: Mapping[str, Any]) -> bool:
    """Whether the load goes to the CPU, as far as the options say: the careful answer is yes."""
    return str(load_options.get("device") or "cpu").lower() in ("cpu", "auto")
