"""Prompts of any shape become asks, and results become text completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hybridd.http.faces.api import Ask
from hybridd.wire.delta import Delta
from hybridd.wire.errors import InvalidParams, Unsupported
from tests.http.faces.openai.support import ENTRY, asked, events, models, replied, streamed, written
from tests.http.faces.support import TIMINGS, USAGE, Models

PATH = "/completions"
KNOWN = {"id": "cmpl-1", "object": "text_completion", "created": 0, "model": "lab/m"}


def generated(text: str = " world", **more: Any) -> dict[str, Any]:
    ended = {"finish_reason": "stop", "usage": USAGE, "timings": TIMINGS}
    return {"model": "lab/m", "text": text, **ended, **more}


def speaking() -> Models:
    """A model that reads tokens as letters, and answers a prompt with itself in capitals."""

    def answer(ask: Ask) -> Mapping[str, Any]:
        if ask.kind == "detokenize":
            return {"text": "".join(map(chr, ask.request["tokens"]))}
        return generated(ask.request["prompt"].upper())

    daemon = models(generated())
    daemon.answer = answer
    return daemon


async def test_a_plain_answer() -> None:
    value = await replied(PATH, models(generated()), {"model": "m", "prompt": "Hello"})
    choice = {"index": 0, "text": " world", "logprobs": None, "finish_reason": "stop"}
    assert value == {
        **KNOWN,
        "choices": [choice],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": 3,
            "total_tokens": 23,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
        "timings": TIMINGS,
    }


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["AB"]),
        ("", [""]),
        (["ab", "c"], ["AB", "C"]),
        ([97, 98], ["AB"]),
        ([[97, 98], [99]], ["AB", "C"]),
        ([[97], []], ["A", ""]),
    ],
)
async def test_prompts_are_texts_or_tokens(prompt: Any, texts: list[str]) -> None:
    daemon = speaking()
    value = await replied(PATH, daemon, {"model": "m", "prompt": prompt})
    assert [choice["text"] for choice in value["choices"]] == texts
    assert value["usage"]["prompt_tokens"] == 20 * len(texts)
    of_tokens = [ask for ask in daemon.asked if ask.kind == "detokenize"]
    special = [ask.request.get("special") for ask in daemon.asked if ask.kind == "generate"]
    assert special == [True if of_tokens else None] * len(texts)


async def test_a_model_is_loaded_for_its_tokenizer_as_for_the_request() -> None:
    daemon = speaking()
    body = {"model": "m", "prompt": [97], "load_options": {"parallel": 2}, "keep_alive": 5}
    await replied(PATH, daemon, body, autoload="0")
    assert [(ask.kind, ask.load_options, ask.keepalive, ask.autoload) for ask in daemon.asked] == [
        ("detokenize", {"parallel": 2}, 5, False),
        ("generate", {"parallel": 2}, 5, False),
    ]


async def test_several_answers_to_several_prompts_with_the_prompts_before() -> None:
    daemon = speaking()
    body = {"model": "m", "prompt": ["a", "b"], "n": 2, "echo": True, "seed": 5}
    value = await replied(PATH, daemon, body)
    assert [choice["text"] for choice in value["choices"]] == ["aA", "aA", "bB", "bB"]
    assert [choice["index"] for choice in value["choices"]] == [0, 1, 2, 3]
    seeds = sorted((ask.request["prompt"], ask.options["seed"]) for ask in daemon.asked)
    assert seeds == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]
    assert value["usage"]["prompt_tokens"] == 40
    assert value["usage"]["completion_tokens"] == 12


async def test_a_thousand_prompts_do_not_fill_the_queue() -> None:
    daemon, most, running = speaking(), 0, 0
    answer = daemon.infer

    async def infer(ask: Ask) -> dict[str, Any]:
        nonlocal most, running
        running += 1
        most = max(most, running)
        result = await answer(ask)
        running -= 1
        return result

    daemon.infer = infer
    value = await replied(PATH, daemon, {"model": "m", "prompt": [*"abcdefghij"] * 100})
    assert [choice["text"] for choice in value["choices"]] == [*"ABCDEFGHIJ"] * 100
    assert 1 < most <= 64


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [["a"]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 50}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 3, "stream": True}, "prompt"),
        ({"prompt": "a", "logprobs": 50}, "logprobs"),
    ],
)
async def test_a_bad_field_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        await replied(PATH, speaking(), {"model": "m", **body})
    assert caught.value.data["field"] == field


@pytest.mark.parametrize(
    ("sent", "capability"),
    [
        ({"suffix": "end"}, "infill"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True, "logprobs": 1}, "prompt_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_what_cannot_be_done_is_named(sent: dict[str, Any], capability: str) -> None:
    with pytest.raises(Unsupported) as caught:
        await replied(PATH, speaking(), {"model": "m", "prompt": "a", **sent})
    assert caught.value.data["capability"] == capability


@pytest.mark.parametrize(
    ("sent", "options"),
    [
        ({}, {}),
        ({"best_of": 1, "suffix": "", "suffix_": 1, "echo": False}, {}),
        ({"best_of": None, "suffix": None, "logprobs": None}, {}),
        ({"logprobs": 0}, {"logprobs": 1}),
        ({"logprobs": 5, "max_tokens": 7}, {"logprobs": 5, "max_tokens": 7}),
        ({"logprobs": False}, {}),
    ],
)
async def test_options(sent: dict[str, Any], options: dict[str, Any]) -> None:
    ask = await asked(PATH, {"prompt": "a", **sent})
    assert (ask.kind, ask.request, ask.options) == ("generate", {"prompt": "a"}, options)


async def test_special_tokens_are_read_where_it_is_asked_for() -> None:
    ask = await asked(PATH, {"prompt": "<s>", "special": True})
    assert ask.request == {"prompt": "<s>", "special": True}


async def test_log_probabilities_stand_side_by_side() -> None:
    other = {**ENTRY, "token": "llo", "logprob": -0.5}
    result = generated("Hello", logprobs=[ENTRY, other])
    value = await replied(PATH, models(result), {"model": "m", "prompt": "a", "logprobs": 2})
    assert value["choices"][0]["logprobs"] == {
        "tokens": ["He", "llo"],
        "token_logprobs": [-0.25, -0.5],
        "top_logprobs": [{"He": -0.25, "Yo": -2.0}] * 2,
        "text_offset": [0, 2],
    }


def chunk(text: str, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None, **more}
    return {**KNOWN, "choices": [choice]}


async def test_a_stream_from_begin_to_end() -> None:
    body = {"prompt": ["a", "b"], "echo": True, "stream_options": {"include_usage": True}}
    answer = await streamed(PATH, body, models(generated()))
    deltas = [Delta("X", 1), (1, Delta('"\n', 1)), Delta("", 1)]
    results = (generated(""), generated("", finish_reason="length"))
    told = events(written(answer.writer, deltas, *results))
    assert told == [
        chunk("a"),
        chunk("b", 1),
        chunk("X"),
        chunk('"\n', 1),
        chunk("", finish_reason="stop"),
        chunk("", 1, finish_reason="length"),
        {
            **KNOWN,
            "choices": [],
            "usage": {
                "prompt_tokens": 40,
                "completion_tokens": 6,
                "total_tokens": 46,
                "prompt_tokens_details": {"cached_tokens": 16},
            },
        },
        "[DONE]",
    ]


async def test_log_probabilities_of_a_stream_go_on_counting_characters() -> None:
    answer = await streamed(PATH, {"prompt": "a", "logprobs": 1}, models(generated()))
    deltas = [Delta("He", 1, None, None, [ENTRY])] * 2
    told = events(written(answer.writer, deltas, generated("")))
    shown = [each["choices"][0]["logprobs"] for each in told[:2]]
    assert [each["text_offset"] for each in shown] == [[0], [2]]
    assert shown[0]["top_logprobs"] == [{"He": -0.25}]
