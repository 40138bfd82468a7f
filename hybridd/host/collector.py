"""Python's garbage collector, kept from stopping the daemon.

A full collection looks at every container object there is and holds the interpreter all the while:
with ten thousand models 120 ms were measured. What a listing is made of has no cycles, so that
nothing is lost when the collector does not look at it: counting references frees it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Collect nothing while a block makes very many objects, in whatever thread.

    For one block at a time, of at most a second or so: nobody's cycles are freed meanwhile.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep() -> None:
    """Never look again at what there is now.

    For seldom use, right after very many lasting objects were made: whatever else is there now and
    dies later as a cycle is not freed.
    """
    gc.freeze()
