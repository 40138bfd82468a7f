"""The stores: which directories are looked in, in which order, and what each is called.

Order matters for names: the same id from two stores goes to the earlier one. A new store is one
more entry here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType

from hybridd.host.scan import Root

LOCAL_STORE = "local"
DEMO_STORE = "demo"
DEMO_PATH = Path(__file__).resolve().parent.parent / "demo"
_DEMO_IDS = MappingProxyType({"demo-gguf": "hybridd/demo-gguf", "demo-hf": "hybridd/demo-hf"})


def roots(model_dirs: Iterable[Path], *, demo: bool) -> list[Root]:
    """The packaged models first, whose ids are fixed, then the user's directories, each once."""
    found = [Root(DEMO_PATH, DEMO_STORE, _DEMO_IDS)] if demo else []
    for path in dict.fromkeys(map(os.path.abspath, model_dirs)):
        found.append(Root(Path(path), LOCAL_STORE))
    return found
