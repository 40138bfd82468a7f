"""A model's cache is found by the name that its code gives it, in any version."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.huggingface.engine.compat import cache
from hybridd.backends.huggingface.engine.compat.auto_classes import AutoModelForCausalLM
from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.compat.leaning import Missing
from tests.make_transformers import make


class Model:
    """What is looked at of a model.

    Args:
        forward: Its own.
        base: What it is built on.
    """

    def __init__(self, forward: Callable[..., Any], base: Model | None = None) -> None:
        self.forward = forward
        self.base_model = base or self


def taking_cache(input_ids: Any, cache: Any = None, **kwargs: Any) -> None: ...
def taking_past(input_ids: Any, past_key_values: Any = None) -> None: ...
def taking_params(input_ids: Any, cache_params: Any = None, position_ids: Any = None) -> None: ...
def taking_state(input_ids: Any, state: Any = None) -> None: ...
def taking_none(input_ids: Any) -> None: ...
def taking_anything(*args: Any, **kwargs: Any) -> None: ...


@functools.wraps(taking_cache)
def renaming(*args: Any, **kwargs: Any) -> None:
    """As transformers wraps a `forward` for those who use an old name."""


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Model(taking_cache), "cache"),
        (Model(taking_past), "past_key_values"),
        (Model(taking_params), "cache_params"),
        (Model(taking_state), "state"),
        (Model(renaming), "cache"),
        (Model(functools.partial(taking_past, 1)), "past_key_values"),
        (Model(taking_anything, Model(taking_params)), "cache_params"),
        (Model(taking_none, Model(taking_past)), None),
        (Model(taking_anything), None),
    ],
)
def test_names(model: Model, name: str | None) -> None:
    assert cache.argument(model) == name


@pytest.mark.parametrize("name", ["cache", "past_key_values", "cache_params", "state"])
def test_an_output_has_it_under_the_same_name(name: str) -> None:
    assert cache.returned(OrderedDict(logits=1, **{name: "kept"})) == "kept"
    assert cache.returned(OrderedDict(logits=1)) is None


@pytest.mark.parametrize("family", ["llama", "mamba", "rwkv", "qwen2"])
def test_models_go_on_from_what_they_return(tmp_path: Path, family: str) -> None:
    """By the names of the version that is installed, without a warning."""
    model = AutoModelForCausalLM.from_pretrained(make(family, tmp_path)).eval()
    name = cache.argument(model)
    assert name is not None
    ids = torch.arange(100, 106)[None]
    with torch.inference_mode():
        whole = model(input_ids=ids).logits[0, -1]
        first = model(input_ids=ids[:, :5], use_cache=True)
        given = {name: cache.returned(first), "use_cache": True}
        last = model(input_ids=ids[:, 5:], **given).logits[0, -1]
    torch.testing.assert_close(last, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "windows"),
    [("llama", [None] * 3), ("gemma3", [24, None, 24]), ("mistral", [24] * 3)],
)
def test_how_far_back_layers_look(tmp_path: Path, family: str, windows: list[int | None]) -> None:
    model = AutoModelForCausalLM.from_pretrained(make(family, tmp_path))
    assert cache.windows(model.config) == windows


def test_layers_of_other_kinds_are_missing(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make("mamba", tmp_path))
    with pytest.raises(Missing, match="something else than keys and values"):
        cache.windows(model.config)
