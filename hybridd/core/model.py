"""What the daemon knows of one model: plain data, no I/O.

`Facts` is what the files' own headers say, `Estimate` what a load of them needs; backends make
both. `ModelRecord` is one entry of the catalog: facts, where they were found and under which id.
Records never change; a new look at the disk makes new ones. What a running instance is doing
(loaded, queued, quarantined…) is not known here: what lists models lays it over `to_wire`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

AVAILABLE = "available"
INVALID = "invalid"

_SURROGATE_FIRST, _SURROGATE_LAST = 0xDC80, 0xDCFF


@dataclass(frozen=True, slots=True)
class Facts:
    """What the headers of one model's files say: the result of an inspection.

    Attributes:
        format: The backend's name.
        files: Every file the model consists of, the one to load first.
        size_bytes: Sum of the files' sizes.
        name: The model's own name, where the files say one.
        base: What builds of one model have in common, as the files say it (`publisher/name`).
        architecture: As the file says it (`llama`, `LlamaForCausalLM`'s model_type, …).
        parameters: Counted from the tensors.
        quantization: The usual name (`Q4_K_M`, `F16`, `BF16`, `int4`…).
        bits_per_weight: Tensor bytes * 8 / parameters.
        context_length: The longest that the model was made for, in tokens.
        capabilities: Of docs/protocol.md's list.
        weights_bytes: Bytes of all tensors as stored.
        layers, heads, kv_heads, head_dim_k, head_dim_v: For the KV formula; None where not known.
            `kv_heads` has one element per layer, or one that holds for all of them.
        vocab_size, embedding_length, feed_forward_length: For compute buffers and logits.
        metadata: JSON-serialisable header facts for `models.show` (long arrays left out).
        chat_template: The Jinja source, when the files have one.
        defaults: The model's own sampling defaults, as docs/protocol.md's `options`.
        reason: Why the files are no usable model; the model is then `invalid`.
    """

    format: str
    files: tuple[Path, ...]
    size_bytes: int = 0
    name: str | None = None
    base: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    bits_per_weight: float | None = None
    context_length: int | None = None
    capabilities: tuple[str, ...] = ()
    weights_bytes: int = 0
    layers: int | None = None
    heads: int | None = None
    kv_heads: tuple[int, ...] | None = None
    head_dim_k: int | None = None
    head_dim_v: int | None = None
    vocab_size: int | None = None
    embedding_length: int | None = None
    feed_forward_length: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """What has to be known of a model to put it on several devices.

    Attributes:
        largest_bytes: Weights of its largest part; a part lies on one device as a whole.
        cache_rate: A byte of weights brings at most so many bytes of KV cache with it.
    """

    largest_bytes: int
    cache_rate: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that a load needs, by what they are for.

    Attributes:
        spread: None when the engine cannot put this model on several devices part by part.
    """

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    overhead_bytes: int
    context_length: int
    parallel: int
    source: str = "formula"
    spread: Spread | None = None

    @property
    def reserved_bytes(self) -> int:
        """What the engine may come to use: what the ledger gates on."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes + self.overhead_bytes

    @property
    def resident_bytes(self) -> int:
        """What is expected to be resident once warm: compute buffers are hardly touched."""
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes


class FileIdentity(NamedTuple):
    """What tells one state of one file from every other without reading it."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Location:
    """One place where a model's files were found."""

    store: str
    path: Path

    def to_wire(self) -> dict[str, str]:
        """docs/protocol.md's `{store, path}`."""
        return {"store": self.store, "path": printable(str(self.path))}


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One entry of the catalog.

    Attributes:
        id: The full id, as docs/protocol.md names models.
        facts: What the headers say.
        publisher: Whose model it is, by the folder names; None for loose files.
        name: The name to show: the repository's, the directory's or the file's stem.
        store: Which store it was found in first.
        path: The file (GGUF: the first shard) or directory that is the model.
        locations: Every place where the same files were seen, `(store, path)` first.
        status: `available` or `invalid`.
        reason: Why it is invalid.
        modified_at: Unix seconds of the newest file.
        files: Every file whose state makes the model's.
        identity: One `FileIdentity` per element of `files`; equal ones mean unchanged files.
        aliases: Other names that `models.resolve` takes.
        base: What builds of this model have in common; never empty.
        digest: What a store records of the content: `sha256:…` of one file, `files-sha256:…` of
            several.
    """

    id: str
    facts: Facts
    publisher: str | None
    name: str
    store: str
    path: Path
    locations: tuple[Location, ...]
    status: str
    reason: str | None
    modified_at: float
    files: tuple[Path, ...]
    identity: tuple[FileIdentity, ...]
    aliases: tuple[str, ...] = ()
    base: str = ""
    digest: str | None = None

    @property
    def content(self) -> str:
        """Names this state of the files; another one where any of them was changed or replaced.

        The number of the device is left out: of some file systems it changes with a restart.
        """
        files = [(i.inode, i.size, i.mtime_ns) for i in self.identity]
        return hashlib.sha256(repr((self.digest, files)).encode()).hexdigest()

    @property
    def format(self) -> str:
        """The wire's `format`."""
        return self.facts.format

    @property
    def available(self) -> bool:
        """Whether the files are a usable model."""
        return self.status == AVAILABLE

    def to_wire(
        self, *, status: str | None = None, stale: bool = False, reason: str | None = None
    ) -> dict[str, Any]:
        """docs/protocol.md's `Model`; the caller lays an instance's state over the catalog's."""
        facts = self.facts
        fields: dict[str, Any] = {
            "id": self.id,
            "aliases": list(self.aliases),
            "format": facts.format,
            "publisher": self.publisher,
            "name": self.name,
            "base": self.base or None,
            "size_bytes": facts.size_bytes,
            "parameters": facts.parameters,
            "quantization": _quantization(facts),
            "architecture": facts.architecture,
            "context_length": facts.context_length,
            "capabilities": list(facts.capabilities),
            "status": status or self.status,
            "stale": stale,
            "reason": reason or self.reason,
            "source": Location(self.store, self.path).to_wire(),
            "locations": [place.to_wire() for place in self.locations],
            "modified_at": self.modified_at,
            "digest": self.digest,
        }
        return {key: value for key, value in fields.items() if value is not None}

    def details(self) -> dict[str, Any]:
        """What `models.show` adds to `to_wire`, as far as the files say it."""
        shown: dict[str, Any] = {
            "metadata": {
                **self.facts.metadata,
                **_shape(self.facts),
                "defaults": dict(self.facts.defaults),
            },
            "files": [
                {"path": printable(str(path)), "size_bytes": identity.size}
                for path, identity in zip(self.files, self.identity, strict=True)
            ],
        }
        if self.facts.chat_template is not None:
            shown["chat_template"] = self.facts.chat_template
        return shown


_SHAPE = (
    "layers",
    "heads",
    "kv_heads",
    "head_dim_k",
    "head_dim_v",
    "vocab_size",
    "embedding_length",
    "feed_forward_length",
)


def _shape(facts: Facts) -> dict[str, Any]:
    """The sizes of the model's graph, by the same names for every format."""
    sizes = {name: getattr(facts, name) for name in _SHAPE}
    known = {name: value for name, value in sizes.items() if value is not None}
    if "kv_heads" in known:
        known["kv_heads"] = list(known["kv_heads"])
    return {"shape": known} if known else {}


def printable(text: str) -> str:
    """Text of a file name as valid Unicode: bytes that were no UTF-8 are written `%XX`."""
    if text.isascii():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    code = ord(character)
    if _SURROGATE_FIRST <= code <= _SURROGATE_LAST:
        return f"%{code - 0xDC00:02X}"
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else character


def _quantization(facts: Facts) -> dict[str, Any] | None:
    if facts.quantization is None:
        return None
    bits = facts.bits_per_weight
    return {"name": facts.quantization, **({} if bits is None else {"bits_per_weight": bits})}
