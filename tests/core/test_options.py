"""docs/protocol.md's option tables and what they mean together."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from hybridd.core.fields import FieldError
from hybridd.core.options import (
    LOAD_FIELD,
    MESSAGES,
    SAMPLING,
    SAMPLING_DEFAULTS,
    SAMPLING_FIELD,
    TOOLS,
    complete_sampling,
    satisfies,
    wanted_of,
)
from hybridd.wire.errors import InvalidParams


def test_precedence_is_request_then_configuration_then_model_then_default() -> None:
    made = complete_sampling({"top_k": 1}, {"top_k": 2, "top_p": 0.2}, {"top_p": 0.3, "min_p": 0.3})
    assert (made["top_k"], made["top_p"], made["min_p"]) == (1, 0.2, 0.3)
    assert made["temperature"] == 0.8


def test_the_last_defaults_are_the_protocols() -> None:
    made = complete_sampling({})
    assert {k: made[k] for k in ("temperature", "top_p", "top_k", "min_p")} == {
        "temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05,
    }  # fmt: skip
    assert (made["repeat_penalty"], made["max_tokens"], made["stop"]) == (1.0, None, [])
    assert set(made) == set(SAMPLING) == set(SAMPLING_DEFAULTS)


def test_defaults_are_not_shared() -> None:
    complete_sampling({})["stop"].append("x")
    assert complete_sampling({})["stop"] == []


def test_a_model_brings_no_options_of_its_own() -> None:
    assert "do_sample" not in complete_sampling({}, {"do_sample": True})


@pytest.mark.parametrize(("stop", "made"), [("x", ["x"]), (["x", "y"], ["x", "y"]), (None, [])])
def test_stop_is_a_list(stop: Any, made: list[str]) -> None:
    assert complete_sampling({"stop": stop})["stop"] == made


def test_a_seed_of_minus_one_is_a_random_one() -> None:
    assert complete_sampling({"seed": -1})["seed"] is None
    assert complete_sampling({"seed": 0})["seed"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": math.nan}, {"temperature": math.inf}, {"temperature": True},
        {"temperature": -0.1}, {"top_p": 1.1}, {"top_k": 1.5}, {"top_k": True}, {"max_tokens": -1},
        {"max_tokens": True}, {"seed": 2**64}, {"stop": ""}, {"stop": [""]}, {"stop": ["x"] * 65},
        {"stop": ["\ud800"]}, {"logprobs": 21}, {"logprobs": True}, {"logit_bias": {"1": math.nan}},
        {"logit_bias": [1]}, {"ignore_eos": 1}, {"temprature": 1}, {"adapters": [{"scale": 1}]},
        {"repeat_penalty": 0}, [],
    ],
    ids=str,
)  # fmt: skip
def test_bad_sampling_options(options: Any) -> None:
    with pytest.raises(FieldError):
        SAMPLING_FIELD.check(options)


def test_good_sampling_options() -> None:
    options = {
        "max_tokens": 0, "temperature": 0, "seed": None, "stop": "x", "logit_bias": {"5": -100},
        "adapters": [{"name": "x", "scale": 0.5}],
    }  # fmt: skip
    assert SAMPLING_FIELD.check(options)["temperature"] == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"context_length": 0}, {"context_length": True}, {"context_length": "big"},
        {"context_length": 4096.0}, {"gpu_layers": -1}, {"gpu_layers": 1.5}, {"gpu_layers": True},
        {"parallel": 0}, {"dtype": "float8"}, {"kv_cache_type": "q1"}, {"threads": 0},
        {"mmap": "yes"}, {"adapters": [{"name": "x"}]}, {"n_ctx": 1},
        {"mlock": 1}, {"tensor_split": []}, {"tensor_split": [-1]},
        {"rope_scaling": {"type": "x"}}, {"rope_scaling": {"factor": 0}},
    ],
    ids=str,
)  # fmt: skip
def test_bad_load_options(options: Any) -> None:
    with pytest.raises(FieldError):
        LOAD_FIELD.check(options)


@pytest.mark.parametrize(
    ("in_force", "wanted", "does"),
    [
        ({"context_length": 8192}, {}, True),
        ({"context_length": 8192}, {"context_length": 4096}, True),
        ({"context_length": 8192}, {"context_length": 8192}, True),
        ({"context_length": 8192}, {"context_length": 8193}, False),
        ({"context_length": 8192}, {"context_length": "auto"}, True),
        ({}, {"context_length": 1}, False),
        ({"parallel": 4}, {"parallel": 2}, True),
        ({"parallel": 4}, {"parallel": 4}, True),
        ({"parallel": 4}, {"parallel": 5}, False),
        ({"kv_cells": 32768}, {"kv_cells": 8192}, True),
        ({"kv_cells": 100}, {"kv_cells": 200}, False),
        ({"threads": 8}, {"threads": 4}, False),
        ({"threads": 4}, {"threads": 4}, True),
        ({"mmap": True}, {"mmap": False}, False),
        ({"dtype": "float32"}, {"dtype": "auto"}, True),
        ({"gpu_layers": 1.0}, {"gpu_layers": 1}, False),
        ({"gpu_layers": 1}, {"gpu_layers": 1.0}, False),
        ({"gpu_layers": 0.5}, {"gpu_layers": 0.5}, True),
        ({"context_length": 8192, "threads": 1}, {"context_length": 1, "threads": 2}, False),
    ],
)
def test_satisfies(in_force: dict[str, Any], wanted: dict[str, Any], does: bool) -> None:
    assert satisfies(in_force, wanted) is does


def test_more_at_a_time_than_the_engine_serves_is_as_many_as_it_does() -> None:
    assert wanted_of({"parallel": 4, "threads": 2}, 1) == {"parallel": 1, "threads": 2}
    assert wanted_of({"parallel": 4}, 256) == {"parallel": 4}
    assert wanted_of({"parallel": "auto"}, 1) == {"parallel": "auto"}
    assert wanted_of({}, 1) == {}


def test_fewer_cells_than_one_request_may_have_tokens() -> None:
    with pytest.raises(InvalidParams) as caught:
        wanted_of({"context_length": 4096, "kv_cells": 4095}, 1)
    assert caught.value.data["field"] == "load_options.kv_cells"
    assert "kv_cells is 4095" in caught.value.message
    for fine in (
        {"context_length": 4096, "kv_cells": 4096},
        {"context_length": 4096, "kv_cells": 5000, "parallel": 4},
        {"kv_cells": 1},
        {"context_length": "auto", "kv_cells": 1},
    ):
        assert wanted_of(fine, 256) == fine


@pytest.mark.parametrize(
    "messages",
    [
        [], {}, "hi", [{}], [{"content": "x"}], [{"role": "king", "content": "x"}],
        [{"role": "user", "content": 1}], [{"role": "user", "content": [{"text": "x"}]}],
        [{"role": "user", "content": "\ud800"}], [{"role": "user"}, 7],
    ],
    ids=str,
)  # fmt: skip
def test_bad_messages(messages: Any) -> None:
    with pytest.raises(FieldError):
        MESSAGES.check(messages)


def test_messages_keep_what_openai_may_add() -> None:
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": [{"type": "text", "text": "x", "cache": True}]},
    ]
    assert MESSAGES.check(messages) == messages
    assert TOOLS.check([{"type": "function"}]) == [{"type": "function"}]
    json.dumps([MESSAGES.schema(), TOOLS.schema()])
