"""Several asks of one request, answered whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from hybridd.http.faces.api import Ask, Call


async def results(call: Call, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """The results of all, in their order.

    Raises:
        HybriddError: The first that one of them met; the others are taken back.
    """
    if len(asks) == 1:
        return [await call.infer(asks[0])]
    made: dict[int, dict[str, Any]] = {}
    failed: list[Exception] = []

    async def run(index: int, ask: Ask) -> None:
        try:
            made[index] = await call.infer(ask)
        except Exception as exc:
            failed.append(exc)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index, ask in enumerate(asks):
            nursery.start_soon(run, index, ask)
    if failed:
        raise failed[0]
    return [made[index] for index in range(len(asks))]
