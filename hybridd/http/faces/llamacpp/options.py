"""llama-server's sampling parameters as the protocol's options. Pure.

What changes only how it is computed (`cache_prompt`, `id_slot`, `samplers`' order, …) is ignored;
what would change the answer and is not there is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hybridd.core.fields import Bool, Field, Float, Int, ListOf, OneOf, Struct, Text
from hybridd.wire.errors import InvalidParams, Unsupported

_STOP = OneOf((Text(), ListOf(Text(), max_length=64)))
FIELDS: Mapping[str, Field] = {
    "n_predict": Int(-2),
    "max_tokens": Int(-2),
    "temperature": Float(),
    "top_k": Int(),
    "top_p": Float(),
    "min_p": Float(),
    "typical_p": Float(),
    "repeat_penalty": Float(),
    "presence_penalty": Float(),
    "frequency_penalty": Float(),
    "seed": Int(),
    "stop": _STOP,
    "logit_bias": Field(),
    "n_probs": Int(0, 20),
    "return_tokens": Bool(),
    "ignore_eos": Bool(),
    "mirostat": Int(),
    "dry_multiplier": Float(),
    "xtc_probability": Float(),
    "dynatemp_range": Float(),
    "top_n_sigma": Float(),
    "grammar": Text(),
    "json_schema": Struct({}, open=True),
    "lora": ListOf(Struct({}, open=True)),
    "post_sampling_probs": Bool(),
}
_SAME = (
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "ignore_eos",
)
_MOST = 2**31 - 1
# What it takes for a random seed, beside -1.
_RANDOM_SEED = 2**32 - 1
# As far as a bias goes here: nothing that low is ever drawn.
_NEVER = -1000.0
# What no engine here has: when it is asked for.
_MISSING: Mapping[str, Callable[[Any], bool]] = {
    "mirostat": lambda value: value != 0,
    "dry_multiplier": lambda value: value != 0,
    "xtc_probability": lambda value: value > 0,
    "dynatemp_range": lambda value: value != 0,
    "top_n_sigma": lambda value: value > 0,
    "lora": bool,
    "post_sampling_probs": bool,
}


def sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol's sampling options. Their ranges are checked where they are used.

    Args:
        body: The fields that are set, as `FIELDS` has them.

    Raises:
        Unsupported: One that no engine here has.
    """
    _refuse(body)
    made = {name: body[name] for name in _SAME if name in body}
    if "temperature" in body:
        made["temperature"] = max(0.0, body["temperature"])
    if "top_k" in body:
        made["top_k"] = min(max(0, body["top_k"]), _MOST)
    most = body.get("n_predict", body.get("max_tokens", -1))
    if most >= 0:
        made["max_tokens"] = min(most, _MOST)
    if "seed" in body:
        made["seed"] = -1 if body["seed"] in (-1, _RANDOM_SEED) else body["seed"]
    if stop := _stops(body.get("stop", [])):
        made["stop"] = stop
    if bias := _bias(body.get("logit_bias")):
        made["logit_bias"] = bias
    if told := body.get("n_probs", 0) or int(body.get("return_tokens", False)):
        made["logprobs"] = told
    return made


def _stops(stop: str | list[str]) -> list[str]:
    """Stop strings; empty ones stop nothing."""
    return [text for text in ([stop] if isinstance(stop, str) else stop) if text]


def _refuse(body: Mapping[str, Any]) -> None:
    for name in ("grammar", "json_schema"):
        if name in body and body[name] != "":
            raise Unsupported(
                f"constrained output ({name}) is not supported yet; leave it out",
                capability="response_format",
            )
    for name, wanted in _MISSING.items():
        if name in body and wanted(body[name]):
            raise Unsupported(f"{name} is not supported; leave it out", capability=name)


def _bias(given: Any) -> dict[str, float]:
    """Token ids with what their logits gain, from pairs or an object; false is never."""
    if given is None:
        return {}
    pairs = list(given.items()) if isinstance(given, Mapping) else given
    if not isinstance(pairs, list) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs
    ):
        raise _no_bias("must be a list of pairs of a token's id and a number, or an object of them")
    made = {}
    for token, value in pairs:
        text = str(token)
        if isinstance(token, bool) or not (text.isascii() and text.isdigit()):
            raise Unsupported(
                "logit_bias of a text is not supported; name tokens by their ids (/tokenize)",
                capability="logit_bias",
            )
        if value is not False and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise _no_bias("takes numbers, and false for a token that must not come")
        made[text] = _NEVER if value is False else float(value)
    return made


def _no_bias(reason: str) -> InvalidParams:
    return InvalidParams(f"logit_bias {reason}", field="logit_bias", reason=reason)
