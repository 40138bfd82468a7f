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

from . import hub, llamacpp, lmstudio, ollama
from .any import look
from .base import Store

__all__ = ["DEMO_PATH", "DEMO_STORE", "LOCAL_STORE", "STORES", "Store", "external", "roots"]

LOCAL_STORE = "local"
DEMO_STORE = "demo"
DEMO_PATH = Path(__file__).resolve().parents[2] / "demo"
_DEMO_IDS = MappingProxyType({"demo-gguf": "hybridd/demo-gguf", "demo-hf": "hybridd/demo-hf"})

# Ollama comes last: its files have no names of their own, so that the same file in another
# store is called as it is there, and by Ollama's name as an alias.
STORES: tuple[Store, ...] = (lmstudio.STORE, hub.STORE, llamacpp.STORE, ollama.STORE)


def roots(model_dirs: Iterable[Path], *, demo: bool, external: Sequence[Root] = ()) -> list[Root]:
    """All places to look in, each once.

    Args:
        model_dirs: The user's directories. One that is a store's own is looked at as that store.
        demo: Whether to list the packaged models, which come first and have fixed ids.
        external: The stores of other programs.
    """
    found = [Root(DEMO_PATH, DEMO_STORE, _DEMO_IDS)] if demo else []
    theirs = {os.path.abspath(root.path) for root in external}
    for path in dict.fromkeys(map(os.path.abspath, model_dirs)):
        if path not in theirs:
            found.append(Root(Path(path), LOCAL_STORE, lister=look))
    return [*found, *external]


def external(enabled: Callable[[str], bool], environment: Mapping[str, str]) -> list[Root]:
    """The places of the stores whose settings are on, whether or not they exist yet."""
    found: dict[str, Root] = {}
    for store in STORES:
        if enabled(store.setting):
            for path in store.places(environment):
                path = os.path.abspath(path)
                found.setdefault(path, Root(Path(path), store.name, lister=store.lister))
    return list(found.values())
