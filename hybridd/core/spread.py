"""A model on several devices: how much goes where. Pure arithmetic.

For engines that put whole parts of a model (layers, the embedding) on the devices one after the
other, in the devices' order, each until the next part has no room. So every device but the last may
be left with as much room as the largest part; on the first one accelerate keeps as much again free,
through which it would pass parts that lie elsewhere.

GPUs are taken the largest room first, and no more of them than are needed. Only what all of them
have no room for goes to main memory. Such weights are brought to the first GPU whenever they are
computed with, and their KV cache is there: so that one has to have room for all of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from hybridd.core.devices import CPU
from hybridd.core.model import Estimate


def shares(estimate: Estimate, rooms: Mapping[str, int], main_memory: int) -> dict[str, int] | None:
    """Bytes by device.

    Args:
        rooms: Bytes that may be used of each GPU, in the driver's order.
        main_memory: Bytes that may be used of it.

    Returns:
        None when there is no room, or when the engine cannot spread the model. The first GPU
        computes with what lies in main memory.
    """
    if estimate.spread is None:
        return None
    largest = sorted(rooms, key=lambda gpu: rooms[gpu], reverse=True)
    for count in range(2, len(rooms) + 1):
        chosen = {gpu: room for gpu, room in rooms.items() if gpu in largest[:count]}
        if placement := _on_gpus(estimate, chosen):
            return placement
    return _with_main_memory(estimate, rooms, main_memory)


def budgets(estimate: Estimate, placement: Mapping[str, int]) -> dict[str, int]:
    """Bytes of weights that may lie on each GPU of a placement that `shares` made."""
    assert estimate.spread is not None
    factor = 1 + estimate.spread.cache_rate
    weights: dict[str, int] = {}
    for gpu in (device for device in placement if device != CPU):
        room = placement[gpu] - estimate.compute_bytes
        if not weights:
            room -= estimate.overhead_bytes
        if not weights and CPU in placement:
            room -= estimate.kv_cache_bytes + 2 * estimate.spread.largest_bytes
            weights[gpu] = room
        else:
            weights[gpu] = int(room / factor)
    return weights


def _on_gpus(estimate: Estimate, rooms: Mapping[str, int]) -> dict[str, int] | None:
    assert estimate.spread is not None
    factor = 1 + estimate.spread.cache_rate
    part = math.ceil(estimate.spread.largest_bytes * factor)
    left = math.ceil(estimate.weights_bytes * factor)
    placement: dict[str, int] = {}
    for gpu, room in rooms.items():
        fixed = estimate.compute_bytes + (0 if placement else estimate.overhead_bytes)
        wasted = part if placement else 2 * part
        if room - fixed <= wasted:
            return None  # of no use: fewer, or none, were tried
        own = min(room - fixed, left + wasted)
        placement[gpu] = own + fixed
        left -= own - wasted
    return placement if left <= 0 else None


def _with_main_memory(
    estimate: Estimate, rooms: Mapping[str, int], main_memory: int
) -> dict[str, int] | None:
    assert estimate.spread is not None
    part = estimate.spread.largest_bytes
    usable = {gpu: room for gpu, room in rooms.items() if room > estimate.compute_bytes}
    while usable:
        placement = {**usable, CPU: 0}
        weights = budgets(estimate, placement)
        # Each has to take one part at least, or it is of no use.
        wasted = {gpu: (2 if i == 0 else 1) * part for i, gpu in enumerate(weights)}
        useless = [gpu for gpu in weights if weights[gpu] - wasted[gpu] < part]
        if useless:
            del usable[useless[0]]
            continue
        on_gpus = sum(weights.values()) - sum(wasted.values())
        placement[CPU] = max(part, estimate.weights_bytes - on_gpus)
        return placement if placement[CPU] <= main_memory else None
    return None
