"""The stores: which directories are looked in, in which order, and what each is called.

Order matters for names: the same id from two stores goes to the earlier one. The user's own
directories come first, then the stores of other programs, which are only ever read. A new store
is one module with a `Store`, named in `STORES`, and its setting in `core/keys`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hybridd.catalog.candidate import Root
from hybridd.catalog.walk import Source

from . import hub, llamacpp, lmstudio, local, ollama
from .base import Store

__all__ = ["DEMO_PATH", "DEMO_STORE", "LOCAL_STORE", "STORES", "Store", "external", "sources"]

LOCAL_STORE = "local"
DEMO_STORE = "demo"
DEMO_PATH = Path(__file__).resolve().parents[2] / "demo"
_DEMO_IDS = MappingProxyType({"demo-gguf": "hybridd/demo-gguf", "demo-hf": "hybridd/demo-hf"})

# Ollama comes last: its files have no names of their own, so that the same file in another
# store is called as it is there, and by Ollama's name as an alias.
STORES: tuple[Store, ...] = (lmstudio.STORE, hub.STORE, llamacpp.STORE, ollama.STORE)


def sources(
    model_dirs: Iterable[Path], *, demo: bool, external: Sequence[Source] = ()
) -> list[Source]:
    """All roots to look in, each once.

    Args:
        model_dirs: The user's directories. One that is a store's own is looked at as that store.
        demo: Whether to list the packaged models, which come first and have fixed ids.
        external: The stores of other programs.
    """
    ours = [Source(Root(DEMO_PATH, DEMO_STORE, _DEMO_IDS))] if demo else []
    theirs = {os.path.abspath(source.root.path) for source in external}
    for path in dict.fromkeys(map(os.path.abspath, model_dirs)):
        if path not in theirs:
            ours.append(Source(Root(Path(path), LOCAL_STORE), local.candidates))
    return [*ours, *external]


def external(enabled: Callable[[str], bool], environment: Mapping[str, str]) -> list[Source]:
    """The roots of the stores whose settings are on, whether or not they exist yet."""
    roots: dict[str, Source] = {}
    for store in STORES:
        if enabled(store.setting):
            for path in map(os.path.abspath, store.directories(environment)):
                roots.setdefault(path, Source(Root(Path(path), store.name), store.lister))
    return list(roots.values())
