"""A directory that the user named: a plain tree, or another program's store put elsewhere."""

from __future__ import annotations

import os

from hybridd.catalog.candidate import Candidate, Root
from hybridd.catalog.walk import Directory, Walk

from . import hub, ollama


def look(walk: Walk, root: Root) -> list[Candidate]:
    """Look at a directory by the layout that its entries show."""
    path = os.fspath(root.path)
    names = {entry.name for entry in walk.entries(path)}
    found: list[Candidate] = []
    if names >= {ollama.MANIFESTS, ollama.BLOBS}:
        found += ollama.look(walk, root)
    if any(name.startswith(hub.PREFIX) for name in names):
        found += hub.look(walk, root)
    if not walk.stopped():
        # What was looked at above is not looked at again.
        found += walk.tree(root, [Directory(path)])
    return found
