"""torch and transformers, imported once, with everything that a first load would import later.

Imported in workers and templates only. Nothing here may touch a GPU or start a thread: a template
forks after it.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import Any

# Read when these libraries are imported: a model is what lies on the disk, and nothing else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch  # noqa: TID253 - worker side, where it may be imported

__all__ = [
    "ALL_ATTENTION_FUNCTIONS",
    "AutoConfig",
    "AutoTokenizer",
    "Cache",
    "DynamicCache",
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "auto_factory",
    "auto_models",
    "auto_processor",
    "cache_utils",
    "following",
    "torch",
    "version",
]

# httpx, the client of transformers' hub, would take trio where it finds it: no worker uses either.
_had_trio = "trio" in sys.modules
if not _had_trio:
    sys.modules["trio"] = None  # type: ignore[assignment] # the import system's "there is none"
try:
    _untyped: Any = importlib.import_module("transformers")
    AutoConfig = _untyped.AutoConfig
    AutoTokenizer = _untyped.AutoTokenizer
    auto_factory: Any = importlib.import_module("transformers.models.auto.auto_factory")
    auto_models: Any = importlib.import_module("transformers.models.auto.modeling_auto")
    cache_utils: Any = importlib.import_module("transformers.cache_utils")
    Cache = cache_utils.Cache
    DynamicCache = cache_utils.DynamicCache
    DynamicLayer = cache_utils.DynamicLayer
    DynamicSlidingWindowLayer = cache_utils.DynamicSlidingWindowLayer
    # Most architectures are built on this one's modules, and it brings what a first load would
    # wait for: two seconds.
    importlib.import_module("transformers.models.llama.modeling_llama")
    ALL_ATTENTION_FUNCTIONS: Any = importlib.import_module(
        "transformers.modeling_utils"
    ).ALL_ATTENTION_FUNCTIONS
finally:
    if not _had_trio:
        del sys.modules["trio"]
# Rules for renaming the weights of every architecture, which each load asks for: a thousand
# regular expressions, compiled on first use. Without them a load still works.
with suppress(ImportError, AttributeError):
    _renaming: Any = importlib.import_module("transformers.conversion_mapping")
    _renaming.get_checkpoint_conversion_mapping("")

_logging: Any = _untyped.utils.logging
_logging.set_verbosity_error()
_logging.disable_progress_bar()
# What a library warns of is for its programmers; a worker's log is for whoever runs a model.
warnings.filterwarnings("ignore", module=r"(torch|transformers)(\..*)?")


def auto_processor() -> Any:
    """transformers' class for what prepares pictures, which few models need."""
    return _untyped.AutoProcessor


def version() -> str:
    """The engine's name as `LoadedFacts` has it."""
    return f"transformers {metadata.version('transformers')}"


@contextmanager
def following(loaded: Callable[[str], None]) -> Iterator[None]:
    """Call `loaded(parameter's name)` as each parameter is in memory.

    transformers walks over the parameters in a progress bar, and lets a hook stand in for the
    bar. What `loaded` raises ends the load. The first versions of transformers 5 have no such hook.
    """
    if not hasattr(_logging, "set_tqdm_hook"):
        yield
        return

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and "weights" in str(kwargs.get("desc", "")).lower():
            return _walk(args[0])
        return factory(*args, **kwargs)

    def _walk(items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            yield item
            loaded(item[0] if isinstance(item, tuple) else "")

    previous = _logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        _logging.set_tqdm_hook(previous)
