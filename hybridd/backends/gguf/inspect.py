"""From a GGUF file's header to facts: what the keys and tensors mean.

Knows the names of llama.cpp's keys and which files are no model by themselves; reading the
container is `reader`. Runs in the daemon and imports nothing heavy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridd.core.grouping import family
from hybridd.core.model import Facts
from hybridd.core.naming import SHARD

from ..bounded import invalid, plain, sampling_default, valid_text, whole
from ..card import ADAPTER, CARD, PROJECTOR
from .card import base_models, capabilities, describe, kind
from .reader import Header, read_header
from .types import FILE_TYPE_GUESSED, FILE_TYPES, NO_GENERATORS, NO_TOKENIZER

FORMAT = "gguf"
# llama.cpp's own limit is 999 shards by the name's width; real ones have up to some 50.
MAX_SHARDS = 512

_SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
}
_NO_MODEL = {
    PROJECTOR: "a multimodal projector (mmproj): it belongs to the model beside it",
    ADAPTER: "a LoRA adapter: it is used with a model, by load_options.adapters",
    "imatrix": "an importance matrix (imatrix): it only helps to quantize a model",
    "control vector": "a control vector: it only changes how a model speaks",
}


def shard_paths(path: Path) -> tuple[Path, ...]:
    """The files of the model whose first (or any) file is `path`, by the shards' naming rule."""
    parts = SHARD.match(path.name)
    if parts is None:
        return (path,)
    count = int(parts["count"])
    if not 1 <= count <= MAX_SHARDS:
        raise invalid(f"the name claims {count} shards; at most {MAX_SHARDS} are read")
    stem, rest = parts["stem"], f"-of-{parts['count']}{parts['suffix']}"
    return tuple(path.with_name(f"{stem}-{number:05d}{rest}") for number in range(1, count + 1))


def inspect(path: Path) -> Facts:
    """Facts of the GGUF model at `path`, a file or the first of its shards.

    Where the header can be read but the files are no usable model (cut short, a shard missing,
    an adapter), the facts come with that `reason`.

    Raises:
        ModelInvalid: The header cannot be read.
        OSError: The file went away or cannot be read.
    """
    files = shard_paths(path)
    missing = []
    if len(files) > 1:
        missing = [number for number, file in enumerate(files, 1) if not file.exists()]
    if 1 in missing:
        raise invalid(_missing(missing, len(files)))
    headers = [read_header(file) for number, file in enumerate(files, 1) if number not in missing]
    what = kind(headers[0])
    facts = _facts(files, headers, what)
    reason = _missing(missing, len(files)) if missing else _reason(files, headers, what)
    return facts if reason is None else replace(facts, reason=reason)


def _missing(missing: Sequence[int], count: int) -> str:
    shown = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
    what = f"shard {shown}" if len(missing) == 1 else f"shards {shown}"
    return f"incomplete: {what} of {count} missing"


def _reason(files: Sequence[Path], headers: Sequence[Header], what: str) -> str | None:
    """Why these files are no usable model, though their headers can be read."""
    first = headers[0]
    meta = first.metadata
    architecture = meta.get("general.architecture")
    if what in _NO_MODEL:
        return _NO_MODEL[what]
    for file, header in zip(files, headers, strict=False):
        if header.end > header.size:
            which = "" if len(files) == 1 else f"{file.name} is "
            return (
                f"{which}truncated: the tensors need {header.end} bytes, the file has {header.size}"
            )
    if not isinstance(architecture, str) or not architecture:
        return "the header names no architecture"
    if not any(header.tensors for header in headers):
        return "only a vocabulary: the file holds no tensors"
    tokenizer = meta.get("tokenizer.ggml.model")
    if tokenizer in NO_TOKENIZER or (
        tokenizer is None and "tokenizer.ggml.tokens" not in first.counts
    ):
        return f"no language model: a file of the architecture {architecture!r} without a tokenizer"
    if architecture in NO_GENERATORS and not capabilities(first, None):
        return f"{NO_GENERATORS[architecture]} (architecture {architecture})"
    return _shard_reason(files, headers)


def _shard_reason(files: Sequence[Path], headers: Sequence[Header]) -> str | None:
    for number, (file, header) in enumerate(zip(files, headers, strict=False)):
        count = whole(header.metadata.get("split.count")) or 0
        if count != len(files) and (count > 1 or len(files) > 1):
            return (
                f"{file.name} is one of {count or 1} shards by its header, of {len(files)} by name"
            )
        if count > 1 and header.metadata.get("split.no") != number:
            return f"{file.name} is a shard out of its place"
    return None


def _facts(files: tuple[Path, ...], headers: Sequence[Header], what: str) -> Facts:
    first = headers[0]
    meta = first.metadata
    architecture = _text(meta.get("general.architecture"))
    template = _template(meta)
    parameters = sum(header.parameters for header in headers)
    weights = sum(header.tensor_bytes for header in headers)
    rules = capabilities(first, template)
    bases = base_models(meta)
    shape = _Shape(first, architecture or "")
    return Facts(
        format=FORMAT,
        files=files,
        size_bytes=sum(header.size for header in headers),
        name=_text(meta.get("general.name")),
        base=_base(_text(meta.get("general.name")), bases),
        architecture=architecture,
        parameters=parameters or None,
        quantization=_quantization(meta, headers),
        bits_per_weight=round(weights * 8 / parameters, 3) if parameters else None,
        context_length=shape.number("context_length", 1),
        capabilities=() if what in _NO_MODEL else tuple(rules),
        weights_bytes=weights,
        layers=shape.number("block_count", 1),
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim_k=shape.head_dim("key_length"),
        head_dim_v=shape.head_dim("value_length"),
        vocab_size=shape.vocab_size,
        embedding_length=shape.number("embedding_length", 1),
        feed_forward_length=shape.feed_forward,
        metadata={**_metadata(headers), CARD: describe(first, what, parameters, rules)},
        chat_template=template,
        defaults=_defaults(meta),
    )


def _base(name: str | None, bases: Sequence[str]) -> str | None:
    """The model that the file is a build of, if its header says one.

    Converters copy what the model's card states, which for most models is what they were trained
    from, and those are builds of themselves: the header's own name tells.
    """
    if len(bases) != 1:
        return None  # a merge of several is a build of none
    return bases[0] if name is None or family(name) == family(bases[0]) else None


class _Shape:
    """The sizes of a model's graph, out of keys that anyone may have written."""

    def __init__(self, header: Header, architecture: str) -> None:
        self.header = header
        self.prefix = f"{architecture}."

    def value(self, key: str) -> Any:
        return self.header.metadata.get(self.prefix + key)

    def number(self, key: str, least: int = 0) -> int | None:
        return whole(self.value(key), least)

    def largest(self, key: str) -> int | None:
        """A number, or the largest of one per layer."""
        value = self.value(key)
        if isinstance(value, list):
            return max((n for n in map(whole, value) if n is not None), default=None)
        return whole(value)

    @property
    def heads(self) -> int | None:
        return self.largest("attention.head_count") or None

    @property
    def kv_heads(self) -> tuple[int, ...] | None:
        value = self.value("attention.head_count_kv")
        if isinstance(value, list) and value:
            per_layer = [whole(n) for n in value]
            return None if None in per_layer else tuple(n or 0 for n in per_layer)
        heads = whole(value)
        if heads is None:
            heads = self.heads
        if heads is None:
            # Recurrent models keep a state of fixed size, not a cache that grows by the token.
            return (0,) if self.value("ssm.state_size") or self.value("wkv.head_size") else None
        return (heads,)

    def head_dim(self, key: str) -> int | None:
        named = self.number(f"attention.{key}", 1)
        if named is not None:
            return named
        embedding, heads = self.number("embedding_length", 1), self.heads
        return embedding // heads if embedding and heads else None

    @property
    def feed_forward(self) -> int | None:
        dense = self.largest("feed_forward_length") or 0
        used = self.number("expert_used_count") or 0
        expert = (self.largest("expert_feed_forward_length") or 0) * used
        return max(dense, expert) or None

    @property
    def vocab_size(self) -> int | None:
        counted = self.header.counts.get("tokenizer.ggml.tokens")
        if counted:
            return counted
        named = self.number("vocab_size", 1)
        embedding = self.header.names.get("token_embd.weight", ())
        return named or (embedding[1] if len(embedding) > 1 else None)


def _text(value: Any, limit: int = 512) -> str | None:
    return value.strip()[:limit] or None if isinstance(value, str) else None


def _template(meta: dict[str, Any]) -> str | None:
    template = meta.get("tokenizer.chat_template")
    if not isinstance(template, str) or not template.strip():
        return None
    # Thousands of models share a few dozen templates.
    return sys.intern(valid_text(template))


def _quantization(meta: dict[str, Any], headers: Sequence[Header]) -> str | None:
    file_type = whole(meta.get("general.file_type"))
    if file_type is not None:
        named = FILE_TYPES.get(file_type & ~FILE_TYPE_GUESSED)
        if named is not None:
            return named
    total: dict[str, int] = {}
    for header in headers:
        for name, size in header.by_type.items():
            total[name] = total.get(name, 0) + size
    return max(total, key=lambda name: total[name], default=None)


def _defaults(meta: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        option: sampling_default(option, meta[key])
        for key, option in _SAMPLING.items()
        if key in meta
    }
    return {option: value for option, value in defaults.items() if value is not None}


def _metadata(headers: Sequence[Header]) -> dict[str, Any]:
    """What `models.show` shows: every scalar and short list, and how long the others are."""
    first = headers[0]
    shown = {
        valid_text(key): plain(value)
        for key, value in first.metadata.items()
        if not key.startswith("tokenizer.chat_template")
    }
    shown = {key: value for key, value in shown.items() if value is not None}
    long = {f"{key}.count": n for key, n in first.counts.items() if key not in shown}
    types: dict[str, int] = {}
    for header in headers:
        for name, size in header.by_type.items():
            types[name] = types.get(name, 0) + size
    return {
        **shown,
        **long,
        "gguf.version": first.version,
        "gguf.tensors": sum(header.tensors for header in headers),
        "gguf.bytes_by_type": types,
    }
