"""What Ollama's messages and options become."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.http.faces.ollama import messages, options
from hybridd.wire.errors import InvalidParams, Unsupported


def test_roles_may_be_in_capitals_and_content_may_be_missing() -> None:
    said = [{"role": "System", "content": "Be kind."}, {"role": "USER"}]
    assert messages.conversation(said) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": ""},
    ]


@pytest.mark.parametrize(
    ("image", "kind"),
    [("iVBORw0K", "png"), ("/9j/4AAQ", "jpeg"), ("R0lGODlh", "gif"), ("UklGRiQA", "webp")],
)
def test_pictures_become_data_urls_of_their_kind(image: str, kind: str) -> None:
    said = [{"role": "user", "content": "What?", "images": [image]}]
    url = f"data:image/{kind};base64,{image}"
    picture = {"type": "image_url", "image_url": {"url": url}}
    expected = [{"type": "text", "text": "What?"}, picture]
    assert messages.conversation(said) == [{"role": "user", "content": expected}]
    assert messages.prompt(None, "", [url]) == [{"role": "user", "content": [picture]}]


def test_a_prompt_is_a_conversation_of_one_message() -> None:
    assert messages.prompt("Be kind.", "Hi", None) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]
    assert messages.prompt("", "Hi", []) == [{"role": "user", "content": "Hi"}]


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"n": 1}}, **more}


def test_results_are_tied_to_the_calls_that_they_answer() -> None:
    said = [
        {"role": "user", "content": "Both."},
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm.",
            "tool_calls": [call("one"), call("two", id="x7"), call("one")],
        },
        {"role": "tool", "content": "2", "tool_name": "two"},
        {"role": "tool", "content": "1", "tool_name": "one"},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "4", "tool_name": "four", "tool_call_id": "y"},
    ]
    _user, assistant, *results = messages.conversation(said)
    assert assistant["reasoning_content"] == "Hm."
    assert [c["id"] for c in assistant["tool_calls"]] == ["call_0", "x7", "call_2"]
    assert assistant["tool_calls"][1] == {
        "id": "x7",
        "type": "function",
        "function": {"name": "two", "arguments": {"n": 1}},
    }
    assert [(r["content"], r["tool_call_id"], r["name"]) for r in results] == [
        ("2", "x7", "two"),
        ("1", "call_0", "one"),
        ("3", "call_2", "one"),
        ("4", "y", "four"),
    ]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("Hi", "messages"),
        (["Hi"], "messages[0]"),
        ([{"role": "robot", "content": "Hi"}], "messages[0].role"),
        ([{"role": "user", "content": 1}], "messages[0].content"),
        ([{"role": "user", "content": "", "images": "iVBOR"}], "messages[0].images"),
        ([{"role": "user", "content": "", "images": ["https://x/y"]}], "messages[0].images[0]"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [{"name": "x"}]}], "messages[0].tool_calls[0]"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": 1}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(said: Any, field: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        messages.conversation(said)
    assert refused.value.data["field"] == field


# langchain-ollama sends all of them in every request.
NULLS: dict[str, None] = {
    **dict.fromkeys(("mirostat", "mirostat_eta", "mirostat_tau", "num_ctx", "num_gpu")),
    **dict.fromkeys(("num_thread", "num_predict", "repeat_last_n", "repeat_penalty")),
    **dict.fromkeys(("temperature", "seed", "stop", "tfs_z", "top_k", "top_p")),
}


def test_null_is_not_set() -> None:
    assert options.sampling(NULLS) == {}
    assert options.load_options(NULLS) is None
    assert options.sampling(None) == {}


def test_options_become_the_protocols() -> None:
    given = {
        "temperature": 0.2,
        "top_k": -1,
        "top_p": 0.9,
        "seed": -7,
        "stop": ["\n"],
        "num_predict": 128.0,
        "num_ctx": 8192,
        "repeat_last_n": 64,
        "num_gpu": 99,
        "mirostat": 0,
        "penalize_newline": True,
    }
    assert options.sampling(given) == {
        "temperature": 0.2,
        "top_k": 0,
        "top_p": 0.9,
        "seed": -1,
        "stop": ["\n"],
        "max_tokens": 128,
    }
    assert options.load_options(given) == {"context_length": 8192}


@pytest.mark.parametrize(("most", "options_"), [(-1, {}), (-2, {}), (0, {"max_tokens": 0})])
def test_a_negative_limit_is_none(most: int, options_: dict[str, int]) -> None:
    assert options.sampling({"num_predict": most}) == options_


@pytest.mark.parametrize(("name", "value"), [("mirostat", 1), ("tfs_z", 0.5)])
def test_what_would_change_the_answer_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(Unsupported) as refused:
        options.sampling({name: value})
    assert refused.value.data["capability"] == name


def test_formats_are_not_supported_yet() -> None:
    options.refuse_format(None)
    options.refuse_format("")
    for format in ("json", {"type": "object"}):
        with pytest.raises(Unsupported) as refused:
            options.refuse_format(format)
        assert refused.value.data["capability"] == "response_format"


def test_thinking_is_told_to_the_template() -> None:
    assert options.thinking(None) == {}
    assert options.thinking(False) == {"enable_thinking": False}
    assert options.thinking("high") == {"enable_thinking": True, "reasoning_effort": "high"}
    with pytest.raises(InvalidParams):
        options.thinking(3)


def test_log_probabilities_are_asked_for_by_number() -> None:
    assert options.logprobs(None, 5) == {}
    assert options.logprobs(True, None) == {"logprobs": 1}
    assert options.logprobs(True, 5) == {"logprobs": 5}
    with pytest.raises(InvalidParams):
        options.logprobs(True, "five")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("x", "options"),
        ({"num_predict": "few"}, "options.num_predict"),
        ({"top_k": 1.5}, "options.top_k"),
    ],
)
def test_options_of_other_types_are_refused_by_name(given: Any, field: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        options.sampling(given)
    assert refused.value.data["field"] == field


def test_a_context_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(InvalidParams) as refused:
        options.load_options({"num_ctx": "2k"})
    assert refused.value.data["field"] == "options.num_ctx"
