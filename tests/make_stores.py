"""Synthetic stores of other programs, and the catalog that the daemon would make of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridd.backends.onnx import BACKEND as ONNX
from hybridd.backends.registry import load_backends
from hybridd.catalog.candidate import Candidate, Root
from hybridd.catalog.inspections import Inspected, Inspections
from hybridd.catalog.records import Stages, make_records
from hybridd.catalog.walk import Listing, Source, Walk, scan
from hybridd.core.model import ModelRecord
from hybridd.core.naming import Name
from tests.make_models import write_gguf, write_json

BACKENDS = {**load_backends(), "onnx": ONNX}
_MEDIA = "application/vnd.ollama.image."


def source(
    path: Path,
    store: str = "local",
    lister: Callable[[Walk, Root], list[Candidate]] | None = None,
) -> Source:
    """A directory to look in."""
    return Source(Root(path, store), lister)


def catalog(
    sources: Sequence[Source], names: Mapping[str, Name] | None = None
) -> tuple[dict[str, ModelRecord], Listing, dict[str, Name]]:
    """Look once, without waiting for files to rest."""
    listing = scan(sources, BACKENDS)
    inspections = Inspections()
    inspected: list[Inspected] = []
    while len(inspected) < len(listing.candidates):
        inspected += inspections.inspect(listing.candidates[len(inspected) :], BACKENDS)
    records, assigned = make_records(Stages(inspected), BACKENDS, {}, names or {}, {})
    return {record.id: record for record in records}, listing, assigned


def models(*sources: Source) -> dict[str, ModelRecord]:
    """The records by id."""
    return catalog(sources)[0]


def reasons(*sources: Source) -> dict[str, str]:
    """Id -> why it is no usable model, or the empty text."""
    return {key: record.reason or "" for key, record in models(*sources).items()}


def sha256(path: Path) -> str:
    """A file's digest."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hub_snapshot(cache: Path, repo: str, made: Path, commit: str, ref: str | None = "main") -> Path:
    """Put the files of the directory `made` into a hub cache as one snapshot; moves them."""
    base = cache / ("models--" + repo.replace("/", "--"))
    snapshot = base / "snapshots" / commit
    (base / "blobs").mkdir(parents=True, exist_ok=True)
    for file in sorted(path for path in made.rglob("*") if path.is_file()):
        large = file.suffix in (".safetensors", ".gguf", ".bin", ".onnx")
        digest = sha256(file) if large else hashlib.sha1(file.read_bytes()).hexdigest()
        blob = base / "blobs" / digest
        if not blob.exists():
            file.rename(blob)
        link = snapshot / file.relative_to(made)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if ref is not None:
        (base / "refs").mkdir(exist_ok=True)
        (base / "refs" / ref).write_text(commit)
    return snapshot


def ollama_blob(root: Path, raw: bytes | Path) -> str:
    """Put bytes, or a file, among the blobs; returns the digest."""
    if isinstance(raw, Path):
        raw = raw.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    path = root / "blobs" / f"sha256-{digest}"
    if not path.exists():
        path.write_bytes(raw)
    return digest


def ollama_model(
    root: Path,
    name: str,
    *,
    host: str = "registry.ollama.ai",
    weights: bytes | Path | None = None,
    **layers: Any,
) -> Path:
    """Write one of Ollama's names (`namespace/name:tag`); returns its manifest.

    Args:
        layers: By role; objects are written as JSON, texts and bytes as they are.
    """
    namespace, _, rest = name.rpartition("/")
    stem, _, tag = rest.partition(":")
    if weights is None:
        weights = write_gguf(root / "tmp.gguf")
    made = [("model", ollama_blob(root, weights))]
    (root / "tmp.gguf").unlink(missing_ok=True)
    for role, value in layers.items():
        raw = value if isinstance(value, bytes | Path) else None
        if raw is None:
            raw = (value if isinstance(value, str) else json.dumps(value)).encode()
        made.append((role, ollama_blob(root, raw)))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": "sha256:" + ollama_blob(root, b"{}")},
        "layers": [
            {"mediaType": _MEDIA + role, "digest": f"sha256:{digest}", "size": 1}
            for role, digest in made
        ],
    }
    return write_json(
        root / "manifests" / host / (namespace or "library") / stem / (tag or "latest"), manifest
    )
