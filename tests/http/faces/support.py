"""What a face's tests ask the gateway, with a manager that is a fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from hybridd.serving.requests import Sink
from hybridd.wire.delta import Delta

USAGE = {"prompt_tokens": 20, "completion_tokens": 3, "cached_tokens": 8, "total_tokens": 23}
TIMINGS = {"total_s": 1.5, "load_s": 0.25, "prompt_s": 0.125, "generation_s": 1.0}


def generates(*texts: str, chat: bool = True, **more: Any) -> Callable[[str, Sink | None], Any]:
    """What a model does: brings these texts, each in a step of its own.

    Args:
        chat: Whether it answers a conversation, not a plain prompt.
        more: Of the result.
    """

    async def work(model: str, sink: Sink | None) -> dict[str, Any]:
        for text in texts:
            await trio.lowlevel.checkpoint()
            if sink is not None and (flush := sink(Delta(text, 1))):
                flush()
        whole = "" if sink is not None else "".join(texts)
        said = {"message": {"role": "assistant", "content": whole}} if chat else {"text": whole}
        ended = {"finish_reason": "stop", "usage": USAGE, "timings": TIMINGS}
        return {"model": model, **said, **ended, **more}

    return work
