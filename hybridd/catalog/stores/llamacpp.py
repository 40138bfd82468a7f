"""llama.cpp's own download cache: files of many repositories in one directory.

`llama-cli -hf org/repo:TAG` writes `org_repo_file.gguf` and beside it a small JSON object
`manifest=org=repo=TAG.json`, which names the file, its projector and their digests. A file that
no manifest names is a loose one. (Newer versions download into the hub's cache instead.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hybridd.backends.bounded import read_json
from hybridd.catalog.candidate import Addition, Candidate, Directory, Root
from hybridd.catalog.walk import Walk
from hybridd.core.naming import SHARD
from hybridd.wire.errors import ModelInvalid

from .base import Store, cache, named

_MANIFEST = re.compile(r"manifest=([^=/]+)=([^=/]+)=[^/]*\.json")
# Real ones have some 2 KiB.
MAX_MANIFEST_BYTES = 256 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


def directories(environment: Mapping[str, str]) -> list[str]:
    """Where LLAMA_CACHE says, and the default."""
    return [*named(environment, "LLAMA_CACHE"), cache(environment, "llama.cpp")]


class _Origin(NamedTuple):
    """What a manifest says of one file in the cache."""

    folders: tuple[str, str]
    stem: str
    digest: str | None
    projector: str | None  # the name in the cache of the file that goes with it


def candidates(walk: Walk, root: Root) -> list[Candidate]:
    """A plain walk, whose files then get back the names that their manifests know."""
    path = os.fspath(root.path)
    origins: dict[str, _Origin] = {}
    for entry in walk.entries(path):
        match = _MANIFEST.fullmatch(entry.name)
        if match is not None:
            origins.update(_origins(Path(entry.path), match[1], match[2]))
    listed = walk.tree(root, [Directory(path)])
    here = {os.path.basename(c.key): c for c in listed if os.path.dirname(c.key) == path}
    projectors = {origin.projector for origin in origins.values()}
    return [
        _named(candidate, origins[name], here) if name in origins else candidate
        for candidate in listed
        if (name := _name(candidate, here)) not in projectors
    ]


def _name(candidate: Candidate, here: Mapping[str, Candidate]) -> str:
    """The name that a manifest may know: files in subdirectories are none of its."""
    name = os.path.basename(candidate.key)
    return name if here.get(name) is candidate else ""


def _named(candidate: Candidate, origin: _Origin, here: Mapping[str, Candidate]) -> Candidate:
    named = replace(
        candidate,
        folders=origin.folders,
        stem=origin.stem,
        digest=origin.digest if len(candidate.own) == 1 else None,
    )
    projector = here.get(origin.projector or "")
    if projector is None or named.additions:
        return named
    return replace(
        named,
        files=(*named.files, projector.path),
        identity=(*named.identity, projector.identity[0]),
        additions=(Addition("projector", projector.path),),
    )


def _origins(manifest: Path, publisher: str, repository: str) -> dict[str, _Origin]:
    """What a manifest says, by the names of files in the cache."""
    try:
        said = read_json(manifest, MAX_MANIFEST_BYTES)
    except (ModelInvalid, OSError):
        return {}
    model = _path_and_digest(said.get("ggufFile"))
    projector = _path_and_digest(said.get("mmprojFile"))
    if model is None:
        return {}
    inside, digest = model
    name = inside.rpartition("/")[2]
    shard = SHARD.match(name)
    prefix = f"{publisher}_{repository}_"
    return {
        prefix + inside.replace("/", "_"): _Origin(
            (publisher, repository),
            shard["stem"] if shard is not None else os.path.splitext(name)[0],
            digest,
            None if projector is None else prefix + projector[0].replace("/", "_"),
        )
    }


def _path_and_digest(said: Any) -> tuple[str, str | None] | None:
    """A file's path in its repository, and its digest."""
    if not isinstance(said, dict) or not isinstance(said.get("rfilename"), str):
        return None
    lfs = said.get("lfs")
    digest = lfs.get("sha256") if isinstance(lfs, dict) else None
    known = isinstance(digest, str) and _SHA256.fullmatch(digest)
    return said["rfilename"], f"sha256:{digest}" if known else None


STORE = Store("llamacpp", "catalog.llamacpp", directories, candidates)
