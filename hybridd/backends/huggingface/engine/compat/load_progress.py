"""Hearing of each weight as transformers loads it, to tell how far a load is and to end it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .imports import transformers
from .leaning import Leaning

HOOK = Leaning(
    name="transformers.utils.logging.set_tqdm_hook",
    purpose="loads tell how far they are, and can be cancelled while weights are read",
    seen="transformers 5.18.0 to 5.24.0",
    without="the load shows no progress and cannot be cancelled while weights are read: this "
    "transformers tells nobody of single weights",
)


@contextmanager
def following(loaded: Callable[[str], None]) -> Iterator[list[str]]:
    """Call `loaded(parameter's name)` as each parameter is in memory; gives notes.

    transformers walks over the parameters in a progress bar, and lets a hook stand in for the
    bar. What `loaded` raises ends the load.
    """
    logging: Any = transformers.utils.logging
    if not hasattr(logging, "set_tqdm_hook"):
        yield [HOOK.without]
        return

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and "weights" in str(kwargs.get("desc", "")).lower():
            return _walk(args[0])
        return factory(*args, **kwargs)

    def _walk(items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            yield item
            loaded(item[0] if isinstance(item, tuple) else "")

    previous = logging.set_tqdm_hook(hook)
    try:
        yield []
    finally:
        logging.set_tqdm_hook(previous)
