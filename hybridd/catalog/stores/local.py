"""A directory that the user named: a plain tree, or another program's store put elsewhere."""

from __future__ import annotations

import os

from hybridd.catalog.candidate import Candidate, Directory, Root
from hybridd.catalog.walk import Walk

from . import hub, ollama


def candidates(walk: Walk, root: Root) -> list[Candidate]:
    """What is in a directory, by the layouts that its entries show."""
    path = os.fspath(root.path)
    names = {entry.name for entry in walk.entries(path)}
    listed: list[Candidate] = []
    if names >= {ollama.MANIFESTS, ollama.BLOBS}:
        listed += ollama.candidates(walk, root)
    if any(name.startswith(hub.PREFIX) for name in names):
        listed += hub.candidates(walk, root)
    if not walk.stopped():
        # What was visited above is not visited again.
        listed += walk.tree(root, [Directory(path)])
    return listed
