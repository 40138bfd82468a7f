"""Ollama: a manifest for every name, and blobs that are called by their digests.

`manifests/HOST/NAMESPACE/NAME/TAG` is a small JSON object that lists layers: the weights (a GGUF
file), and what goes with them (projector, adapter, template, parameters, system prompt,
messages, license). `blobs/sha256-…` are their bytes. Names are shortened as Ollama does: its own
registry's host and the namespace `library` are left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hybridd.backends.bounded import invalid, read_json
from hybridd.catalog.candidate import Addition, Candidate, Root, identity_of
from hybridd.catalog.walk import Walk
from hybridd.core.model import FileIdentity, Location, printable
from hybridd.wire.errors import ModelInvalid

from .base import Store, home, named

MANIFESTS, BLOBS = "manifests", "blobs"
# Names that Ollama leaves out when it shows one.
_HOST, _NAMESPACE = "registry.ollama.ai", "library"
_LATEST = "latest"
# Real manifests have some 2 KiB and 10 layers.
MAX_MANIFEST_BYTES = 256 * 1024
MAX_LAYERS = 1024

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_MEDIA = "application/vnd.ollama.image."
_ROLES = ("projector", "adapter", "template", "params", "system", "messages")
# With one of these a model is something else than its weights.
_SUBSTANCE = frozenset({"projector", "adapter", "system", "messages"})
_SUFFIX = ".gguf"  # the weights are such files, whatever they are called here


def directories(environment: Mapping[str, str]) -> list[str]:
    """The user's own, and the one of the service that Ollama's installer makes."""
    return [
        *named(environment, "OLLAMA_MODELS"),
        home(environment, ".ollama", "models"),
        "/usr/share/ollama/.ollama/models",
    ]


class _Layer(NamedTuple):
    role: str
    digest: str  # 64 hexadecimal digits


def candidates(walk: Walk, root: Root) -> list[Candidate]:
    """One candidate for every manifest; the names of one model come together in `merged`."""
    format_name = walk.format_of(_SUFFIX)
    if format_name is None:
        return []
    listed = []
    for path, parts in _manifests(walk, os.path.join(root.path, MANIFESTS), ()):
        if walk.stopped():
            break
        candidate = _candidate(root, path, parts, format_name)
        if candidate is not None:
            listed.append(candidate)
    return listed


def _manifests(
    walk: Walk, path: str, parts: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every manifest with its host, namespace, name and tag."""
    for entry in walk.entries(path):
        inner = (*parts, entry.name)
        try:
            if len(inner) < 4 and entry.is_dir():
                yield from _manifests(walk, entry.path, inner)
            elif len(inner) == 4 and entry.is_file():
                yield entry.path, inner
        except FileNotFoundError:
            continue  # deleted while we look
        except OSError as error:
            walk.problem(entry.path, error)


def _candidate(root: Root, path: str, parts: tuple[str, ...], format_name: str) -> Candidate | None:
    manifest = Path(path)
    try:
        state = identity_of(manifest.stat())
    except OSError:
        return None  # deleted while we look
    try:
        layers = _layers(manifest)
        files, states = _blobs(root.path, layers)
    except FileNotFoundError:
        return None
    except OSError as error:
        # Asked for its facts it fails in the same way, which is said and not remembered.
        gone = Path(error.filename or manifest)
        return _of_manifest(root, format_name, manifest, parts, (gone,), (state,))
    except ModelInvalid as error:
        reason = f"its manifest cannot be read ({error.data.get('reason')})"
        return _of_manifest(
            root, format_name, manifest, parts, (manifest,), (state,), reason=reason
        )
    missing = [layer for layer, known in zip(layers, states, strict=True) if known is None]
    if missing:
        what = ", ".join(layer.role for layer in missing)
        reason = f"incomplete: its {what} is missing (sha256-{missing[0].digest[:12]}…)"
        return _of_manifest(
            root, format_name, manifest, parts, (manifest,), (state,), reason=reason
        )
    known = tuple(state for state in states if state is not None)
    variant = tuple(sorted(f"{layer.role} {layer.digest}" for layer in layers[1:]))
    return _of_manifest(
        root,
        format_name,
        manifest,
        parts,
        files,
        known,
        additions=tuple(
            Addition(layer.role, file) for layer, file in zip(layers[1:], files[1:], strict=True)
        ),
        digest=f"sha256:{layers[0].digest}",
        variant=variant or ("bare",),
        plain=_SUBSTANCE.isdisjoint(layer.role for layer in layers),
    )


def _of_manifest(
    root: Root,
    format_name: str,
    manifest: Path,
    parts: tuple[str, ...],
    files: tuple[Path, ...],
    identity: tuple[FileIdentity, ...],
    **more: Any,
) -> Candidate:
    given, aliases = _names(parts)
    return Candidate(
        key=os.fspath(manifest),
        format=format_name,
        path=files[0],
        root=root,
        folders=parts[:-1],
        stem=parts[-1],
        is_file=True,
        files=files,
        identity=identity,
        locations=(Location(root.store, files[0]),),
        given=given,
        aliases=aliases,
        **more,
    )


def _names(parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The name as Ollama says it, and what it takes for it besides."""
    host, namespace, name, tag = map(printable, parts)
    if host != _HOST:
        name = f"{host}/{namespace}/{name}"
    elif namespace != _NAMESPACE:
        name = f"{namespace}/{name}"
    return f"{name}:{tag}", (name,) if tag == _LATEST else ()


def _layers(manifest: Path) -> list[_Layer]:
    """The layers that matter, the weights first.

    Raises:
        ModelInvalid: It is no manifest of one GGUF file.
        OSError: It cannot be read.
    """
    listed = read_json(manifest, MAX_MANIFEST_BYTES).get("layers")
    if not isinstance(listed, list) or len(listed) > MAX_LAYERS:
        raise invalid("it lists no layers")
    layers: list[_Layer] = []
    other = False
    for layer in listed:
        kind = layer.get("mediaType") if isinstance(layer, dict) else None
        if not isinstance(kind, str) or not kind.startswith(_MEDIA):
            raise invalid("a layer of it has an unknown type")
        role = kind.removeprefix(_MEDIA).partition(";")[0]
        other = other or role == "tensor"
        if role == "model" or role in _ROLES:
            digest = layer.get("digest")
            match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
            if match is None:
                raise invalid("a layer of it has no digest")
            layers.append(_Layer(role, match[1]))
    weights = [layer for layer in layers if layer.role == "model"]
    if len(weights) == 1:
        return [*weights, *(layer for layer in layers if layer.role != "model")]
    if weights:
        raise invalid(f"its weights are in {len(weights)} layers, which llama.cpp cannot load")
    raise invalid("its weights are no GGUF file" if other else "it has no weights: they are remote")


def _blobs(
    root: Path, layers: list[_Layer]
) -> tuple[tuple[Path, ...], tuple[FileIdentity | None, ...]]:
    """Where the layers' bytes are; None for the state of one that is not there."""
    paths: list[Path] = []
    states: list[FileIdentity | None] = []
    for layer in layers:
        path = root / BLOBS / f"sha256-{layer.digest}"
        paths.append(path)
        try:
            states.append(identity_of(path.stat()))
        except FileNotFoundError:
            states.append(None)
    return tuple(paths), tuple(states)


STORE = Store("ollama", "catalog.ollama", directories, candidates)
