"""When a pass through the model is given up because a request in it was cancelled.

A pass serves several requests, and all of them lose it. So it is not given up for the lesser part
of it: only where at least half of its rows are of prompts whose requests were cancelled. A row that
generates never counts: it is one row, and its cancel is heard before the next step anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Aborted(Exception):
    """A pass was given up in its middle. What is in the cells then, its session says."""


def give_up_when(
    prompts: Sequence[tuple[int, int]], rows: int, interrupted: Callable[[int], bool]
) -> Callable[[], bool] | None:
    """What is asked in the middle of a pass; None where nothing is to be asked.

    Args:
        prompts: Request id and rows of each part of a prompt.
        rows: Of the whole pass.
        interrupted: As `api.Engine.set_interrupted` gets it; cheap.
    """
    if not prompts:
        return None

    def given_up() -> bool:
        return 2 * sum(count for id, count in prompts if interrupted(id)) >= rows

    return given_up
