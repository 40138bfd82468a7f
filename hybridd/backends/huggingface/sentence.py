"""What sentence-transformers' files say of an embedding model: pooling, and what follows it.

`modules.json` names the parts of such a model by their Python classes. Those known here are done
by us; a class that is not known is refused, since its code could only come from elsewhere.
Reads small JSON files, bounds first, and imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridd.backends.bounded import invalid, read_file, read_json, whole

MAX_MODULES_BYTES = 64 * 1024
MAX_MODULES = 16
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# Names of before version 6: one flag for each.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# The class names of torch's functions that a Dense module or a score may end with.
ACTIVATIONS = ("Identity", "Tanh", "Sigmoid", "ReLU", "GELU", "SiLU")
_LENGTHS = ("sentence_bert_config.json", "sentence_roberta_config.json")


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to a pooled vector: `kind` is dense, layer_norm or normalize.

    Attributes:
        path: The directory of its weights.
        activation: Of a dense one, by torch's name.
    """

    kind: str
    path: Path | None = None
    activation: str = "Identity"


@dataclass(frozen=True, slots=True)
class Recipe:
    """From a model's last hidden states to a vector.

    Attributes:
        poolings: Of `POOLINGS`; the results of several are put one behind the other. None where
            the files say nothing.
        steps: In their order.
        max_length: Tokens that a text may have, where the files say so.
        lower_case: Texts are made lower case first.
        prompt: Stands before each text.
        pools_prompt: Whether its tokens count in the pooling.
    """

    poolings: tuple[str, ...] | None = None
    steps: tuple[Step, ...] = ()
    max_length: int | None = None
    lower_case: bool = False
    prompt: str = ""
    pools_prompt: bool = True


def read_recipe(path: Path) -> Recipe:
    """The recipe of the model in the directory `path`.

    Raises:
        ModelInvalid: The files make no sense, or name a module that is not known.
        OSError: One cannot be read.
    """
    lengths = _optional(path, *_LENGTHS)
    prompts = _optional(path, "config_sentence_transformers.json")
    named = prompts.get("prompts")
    default = prompts.get("default_prompt_name")
    prompt = named.get(default) if isinstance(named, dict) and isinstance(default, str) else None
    found = _modules(path) if (path / "modules.json").is_file() else Recipe()
    return replace(
        found,
        max_length=whole(lengths.get("max_seq_length"), 1),
        lower_case=lengths.get("do_lower_case") is True,
        prompt=prompt if isinstance(prompt, str) else "",
    )


def max_length(path: Path) -> int | None:
    """How many tokens of a text the model was made to take; None where nothing says so."""
    return whole(_optional(path, *_LENGTHS).get("max_seq_length"), 1)


def activation(name: object) -> str:
    """torch's class name of an activation function that a configuration names.

    Raises:
        ModelInvalid: It is none of `ACTIVATIONS`.
    """
    found = str(name).rpartition(".")[2]
    if found not in ACTIVATIONS:
        raise invalid(f"an activation function that is not known here: {str(name)[:80]!r}")
    return found


def _modules(path: Path) -> Recipe:
    try:
        listed = json.loads(read_file(path / "modules.json", MAX_MODULES_BYTES))
    except (ValueError, RecursionError):
        raise invalid("modules.json is no JSON") from None
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_MODULES:
        raise invalid("modules.json is no list of modules")
    poolings: tuple[str, ...] | None = None
    steps: list[Step] = []
    pools_prompt = True
    for number, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise invalid("modules.json is no list of modules")
        kind = str(entry.get("type", "")).rpartition(".")[2]
        where = _inside(path, entry.get("path"))
        if kind == "Transformer" and number == 0:
            if where != path:
                raise invalid("modules.json has the transformer in a directory of its own")
        elif kind == "Pooling" and poolings is None:
            said = _optional(where, "config.json")
            poolings, pools_prompt = _poolings(said), said.get("include_prompt") is not False
        elif kind == "Normalize":
            steps.append(Step("normalize"))
        elif kind == "LayerNorm":
            steps.append(Step("layer_norm", where))
        elif kind == "Dense":
            named = _optional(where, "config.json").get("activation_function", "Tanh")
            steps.append(Step("dense", where, activation(named)))
        elif kind != "Dropout":
            raise invalid(f"modules.json names a module that is not known here: {kind[:80]!r}")
    if poolings is None:
        raise invalid("modules.json names no pooling")
    return Recipe(poolings, tuple(steps), pools_prompt=pools_prompt)


def _poolings(said: Mapping[str, Any]) -> tuple[str, ...]:
    mode = said.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else mode
    if modes is None:
        modes = [name for flag, name in _FLAGS.items() if said.get(flag) is True] or ["mean"]
    if not isinstance(modes, list) or not modes or not all(one in POOLINGS for one in modes):
        raise invalid(f"a pooling that is not known here: {str(mode)[:80]!r}")
    return tuple(modes)


def _inside(path: Path, name: object) -> Path:
    """A module's directory, which is the model's own or one in it."""
    if name in ("", None):
        return path
    if not isinstance(name, str) or name in (".", "..") or "/" in name or "\0" in name:
        raise invalid("modules.json names a path outside of the model's directory")
    return path / name


def _optional(path: Path, *names: str) -> Mapping[str, Any]:
    for name in names:
        if (path / name).is_file():
            return read_json(path / name, MAX_MODULES_BYTES)
    return {}
