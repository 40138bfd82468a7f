"""The Hugging Face hub's cache: `models--org--name/{blobs,refs,snapshots}`.

A snapshot is a directory named by a commit, of symlinks into `blobs`, whose names are digests:
SHA-256 for large files, git's SHA-1 for small ones. `refs/main` names the commit that `main` was
at the last download; its snapshot comes first and has the plain name, others are told apart by
their commit. Data sets and spaces in the same cache are passed over.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hybridd.backends.bounded import read_file
from hybridd.catalog.candidate import Candidate, Directory, Root
from hybridd.catalog.walk import Walk
from hybridd.wire.errors import ModelInvalid

from .base import Store, cache, named

PREFIX = "models--"
_SNAPSHOTS = "snapshots"
# A ref is a commit's 40 digits.
_MAX_REF_BYTES = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def directories(environment: Mapping[str, str]) -> list[str]:
    """Every cache that the hub's own variables name, and the default one."""
    return [
        *named(environment, "HF_HUB_CACHE"),
        *named(environment, "HUGGINGFACE_HUB_CACHE"),
        *named(environment, "HF_HOME", "hub"),
        cache(environment, "huggingface", "hub"),
    ]


def candidates(walk: Walk, root: Root) -> list[Candidate]:
    """The models of every repository, those of one in the order of its snapshots."""
    listed: list[Candidate] = []
    for entry in walk.entries(os.fspath(root.path)):
        if walk.stopped():
            break
        if entry.name.startswith(PREFIX):
            listed += _repository(walk, root, entry)
    return listed


def _repository(walk: Walk, root: Root, entry: os.DirEntry[str]) -> list[Candidate]:
    base = os.path.join(entry.path, _SNAPSHOTS)
    main = _main(entry.path)
    commits = [snapshot.name for snapshot in walk.entries(base)]
    commits.sort(key=lambda commit: (commit != main, commit))
    listed: list[Candidate] = []
    for commit in commits:
        snapshot = os.path.join(base, commit)
        folders = (entry.name, _SNAPSHOTS, commit)
        for candidate in walk.tree(root, [Directory(snapshot, folders)]):
            digest = _digest(candidate.files[: len(candidate.own)], snapshot)
            listed.append(replace(candidate, digest=digest, commit=commit))
    return listed


def _main(repository: str) -> str | None:
    """The commit that `main` was at when something was downloaded last."""
    try:
        return read_file(Path(repository, "refs", "main"), _MAX_REF_BYTES).decode().strip()
    except (OSError, ValueError, ModelInvalid):
        return None


def _digest(files: Sequence[Path], snapshot: str) -> str | None:
    """The digest of a file, or one of all names and digests together; None where one has none."""
    lines = []
    for path in files:
        try:
            blob = os.path.basename(os.readlink(path))
        except OSError:
            return None  # a copy, where the cache could not make links
        if _SHA256.fullmatch(blob) and len(files) == 1:
            return f"sha256:{blob}"
        if not (_SHA256.fullmatch(blob) or _SHA1.fullmatch(blob)):
            return None
        lines.append(f"{blob}  {os.path.relpath(path, snapshot)}\n")
    if len(files) == 1:
        return None  # git's SHA-1 is not one of the bytes alone
    together = "".join(lines).encode("utf-8", "surrogateescape")
    return f"files-sha256:{hashlib.sha256(together).hexdigest()}"


STORE = Store("hub", "catalog.hub", directories, candidates)
