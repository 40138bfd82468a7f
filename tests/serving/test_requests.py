"""A request on its way: what it gathers, where its time went, and that it ends once."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from hybridd.core.kinds import KINDS
from hybridd.serving.requests import InferenceRequest
from hybridd.wire import errors
from hybridd.wire.delta import Delta

DONE: dict[str, Any] = {
    "finish_reason": "length",
    "usage": {"prompt_tokens": 10, "completion_tokens": 4},
    "timings": {"prompt_s": 2.0, "generation_s": 0.5},
}


def inference(kind: str = "generate", **more: Any) -> InferenceRequest:
    return InferenceRequest(
        1, "m", KINDS[kind], {}, more.pop("sink", None), trio.current_time(), **more
    )


async def test_the_text_of_the_deltas_is_the_result() -> None:
    made = inference()
    for text in ("a", "", "ü", "\n"):
        made.delta(Delta(text, 1))
    made.finish(DONE)
    result = await made.outcome()
    assert (result["model"], result["text"], result["finish_reason"]) == ("m", "aü\n", "length")
    assert result["usage"] == {
        "prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "cached_tokens": 0,
    }  # fmt: skip
    assert "logprobs" not in result


async def test_a_chat_has_a_message() -> None:
    made = inference("chat")
    made.delta(Delta("hi", 1, logprobs=[{"token": "hi"}]))
    made.finish(DONE)
    result = await made.outcome()
    assert result["message"] == {"role": "assistant", "content": "hi"}
    assert result["logprobs"] == [{"token": "hi"}]
    assert "text" not in result


@pytest.mark.parametrize("kind", ["generate", "chat"])
async def test_what_was_streamed_is_not_repeated(kind: str) -> None:
    seen: list[Any] = []
    made = inference(kind, sink=seen.append)
    made.delta(Delta("hi", 1, logprobs=[{"token": "hi"}]))
    made.finish(DONE)
    result = await made.outcome()
    assert seen == [Delta("hi", 1, logprobs=[{"token": "hi"}])]
    assert "text" not in result
    assert "logprobs" not in result
    assert result.get("message", {"role": "assistant"}) == {"role": "assistant"}


async def test_where_the_time_went(autojump_clock: Any) -> None:
    made = inference()
    await trio.sleep(5)
    made.sent_at, made.load_s = trio.current_time(), 3.0
    await trio.sleep(2)
    made.delta(Delta("a", 1))
    await trio.sleep(0.5)
    made.finish(DONE)
    assert (await made.outcome())["timings"] == {
        "queue_s": 2.0, "load_s": 3.0, "prompt_s": 2.0, "first_token_s": 7.0,
        "generation_s": 0.5, "total_s": 7.5, "prompt_tokens_per_s": 5.0,
        "generation_tokens_per_s": 8.0,
    }  # fmt: skip


@pytest.mark.parametrize(("cached", "rate"), [(0, 5.0), (8, 1.0), (10, 0.0)])
async def test_cached_tokens_pass_through_and_were_not_computed(cached: int, rate: float) -> None:
    made = inference()
    made.finish({**DONE, "usage": {**DONE["usage"], "cached_tokens": cached}})
    result = await made.outcome()
    assert result["usage"] == {
        "prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "cached_tokens": cached,
    }  # fmt: skip
    assert result["timings"]["prompt_tokens_per_s"] == rate


async def test_without_figures_there_are_no_rates() -> None:
    made = inference()
    made.finish({"finish_reason": "stop"})
    result = await made.outcome()
    assert "prompt_tokens_per_s" not in result["timings"]
    assert result["usage"]["total_tokens"] == 0
    assert result["text"] == ""


async def test_it_ends_once() -> None:
    made = inference()
    made.fail(errors.WorkerDied("first"))
    made.fail(errors.Cancelled("second"))
    made.finish(DONE)
    made.delta(Delta("late", 1))
    with pytest.raises(errors.WorkerDied):
        await made.outcome()
    assert made.deltas == []
    other = inference()
    other.finish(DONE)
    other.fail(errors.Cancelled("late"))
    assert (await other.outcome())["finish_reason"] == "length"
