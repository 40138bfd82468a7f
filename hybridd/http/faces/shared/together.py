"""Several asks of one request, answered whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from hybridd.http.faces.api import Ask, Call

# Many times what a model computes at a time, and a part of what may wait for it.
AT_A_TIME = 64


async def results(call: Call, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """The results of all, in their order; `AT_A_TIME` of them are asked at a time.

    Raises:
        HybriddError: The first that one of them met; the others are taken back.
    """
    if len(asks) == 1:
        return [await call.infer(asks[0])]
    made: dict[int, dict[str, Any]] = {}
    failed: list[Exception] = []
    waiting = iter(enumerate(asks))

    async def run() -> None:
        for index, ask in waiting:
            try:
                made[index] = await call.infer(ask)
            except Exception as exc:
                failed.append(exc)
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_A_TIME, len(asks))):
            nursery.start_soon(run)
    if failed:
        raise failed[0]
    return [made[index] for index in range(len(asks))]
