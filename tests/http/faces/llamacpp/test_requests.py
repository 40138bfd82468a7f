"""What llama-server's bodies become."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.http.faces.api import Ask
from hybridd.http.faces.llamacpp import options, requests
from hybridd.http.faces.shared import bodies
from hybridd.wire.errors import InvalidParams, Unsupported


def asked(**body: Any) -> list[Ask]:
    return requests.completions(bodies.read(requests.COMPLETION, body), "m", autoload=True)


def test_a_prompt_is_one_ask_whose_special_tokens_are_read() -> None:
    [ask] = asked(prompt="<|fim_prefix|>x", n_predict=128, temperature=0.5, cache_prompt=True)
    assert ask == Ask(
        "generate",
        "m",
        {"prompt": "<|fim_prefix|>x", "special": True},
        {"temperature": 0.5, "max_tokens": 128},
    )


def test_each_prompt_and_each_completion_is_an_ask() -> None:
    asks = asked(prompt=["a", {"prompt_string": "b"}], n_cmpl=2)
    assert [ask.request["prompt"] for ask in asks] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"n_predict": -1}, {}),
        ({"n_predict": -2}, {}),
        ({"n_predict": 2**40}, {"max_tokens": 2**31 - 1}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": -1}, {"temperature": 0.0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"seed": 2**32 - 1}, {"seed": -1}),
        ({"seed": 7}, {"seed": 7}),
        ({"stop": ["", "x"]}, {"stop": ["x"]}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": []}, {}),
        ({"n_probs": 3}, {"logprobs": 3}),
        ({"return_tokens": True}, {"logprobs": 1}),
        ({"logit_bias": [[5, 1], ["6", False]]}, {"logit_bias": {"5": 1.0, "6": -1000.0}}),
        ({"logit_bias": {"5": -2.5}}, {"logit_bias": {"5": -2.5}}),
        ({"logit_bias": []}, {}),
        ({"mirostat": 0, "dry_multiplier": 0.0, "xtc_probability": 0, "top_n_sigma": -1}, {}),
        ({"grammar": "", "lora": [], "dynatemp_range": 0, "post_sampling_probs": False}, {}),
        ({"json_schema": None, "samplers": ["top_k"], "id_slot": 0, "t_max_predict_ms": 500}, {}),
    ],
)
def test_parameters_become_options(given: dict[str, Any], made: dict[str, Any]) -> None:
    assert asked(prompt="a", **given)[0].options == made


@pytest.mark.parametrize(
    ("given", "capability"),
    [
        ({"grammar": 'root ::= "a"'}, "response_format"),
        ({"json_schema": {"type": "object"}}, "response_format"),
        ({"json_schema": {}}, "response_format"),
        ({"mirostat": 2}, "mirostat"),
        ({"dry_multiplier": 0.8}, "dry_multiplier"),
        ({"xtc_probability": 0.1}, "xtc_probability"),
        ({"dynatemp_range": 0.5}, "dynatemp_range"),
        ({"top_n_sigma": 1}, "top_n_sigma"),
        ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
        ({"post_sampling_probs": True}, "post_sampling_probs"),
        ({"logit_bias": [["Hello", 1]]}, "logit_bias"),
        ({"prompt": [1, 2, 3]}, "token_prompts"),
        ({"prompt": [[1, 2], "b"]}, "token_prompts"),
        ({"prompt": {"prompt_string": "a", "multimodal_data": ["iVBOR"]}}, "vision"),
    ],
)
def test_what_is_not_there_is_refused_by_name(given: dict[str, Any], capability: str) -> None:
    with pytest.raises(Unsupported) as refused:
        asked(**{"prompt": "a", **given})
    assert refused.value.data["capability"] == capability


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": True}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": ["a"] * 100, "n_cmpl": 2}, "prompt"),
        ({"n_probs": 21}, "n_probs"),
        ({"temperature": "warm"}, "temperature"),
        ({"logit_bias": "x"}, "logit_bias"),
        ({"logit_bias": [[5, True]]}, "logit_bias"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        asked(**{"prompt": "a", **given})
    assert refused.value.data["field"] == field


def test_what_is_to_be_filled_in_is_read() -> None:
    sent = {
        "input_prefix": "def f(",
        "input_suffix": "): pass",
        "input_extra": [{"filename": "a.py", "text": "x = 1"}, {"text": "y"}],
        "prompt": "a",
        "n_predict": 16,
    }
    read = requests.infill(bodies.read(requests.INFILL, sent))
    assert (read.before, read.after, read.begun) == ("def f(", "): pass", "a")
    assert list(read.extra) == [("a.py", "x = 1"), ("", "y")]
    assert read.sampling == options.sampling({"n_predict": 16})
