"""The bodies of llama-server's native requests as what is asked of a model. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridd.core.fields import Bool, Field, Int, ListOf, Struct, Text
from hybridd.core.requests import MODEL, TOKENS
from hybridd.http.faces.api import Ask
from hybridd.http.faces.llamacpp import options
from hybridd.wire.errors import InvalidParams, Unsupported

_ANY = Struct({}, open=True)
_MODEL: Mapping[str, Field] = {"model": MODEL}
# More completions of one request are nothing that an editor needs.
_MOST_ASKS = 128
_GENERATED: Mapping[str, Field] = {
    **_MODEL,
    **options.FIELDS,
    "stream": Bool(),
    "n_cmpl": Int(1, _MOST_ASKS),
}
COMPLETION = Struct({**_GENERATED, "prompt": Field()}, required=("prompt",), open=True)
INFILL = Struct(
    {
        **_GENERATED,
        "input_prefix": Text(),
        "input_suffix": Text(),
        "input_extra": ListOf(
            Struct({"filename": Text(), "text": Text()}, required=("text",), open=True)
        ),
        "prompt": Text(),
    },
    open=True,
)
TOKENIZE = Struct(
    {
        **_MODEL,
        "content": Text(),
        "add_special": Bool(),
        "parse_special": Bool(),
        "with_pieces": Bool(),
    },
    required=("content",),
    open=True,
)
DETOKENIZE = Struct({**_MODEL, "tokens": TOKENS}, required=("tokens",), open=True)
TEMPLATE = Struct(
    {
        **_MODEL,
        "messages": ListOf(_ANY, min_length=1),
        "tools": ListOf(_ANY),
        "chat_template_kwargs": _ANY,
    },
    required=("messages",),
    open=True,
)


def completions(body: Mapping[str, Any], model: str, *, autoload: bool) -> list[Ask]:
    """What `/completion` asks: one ask for each prompt, and each completion of it.

    Args:
        body: The fields that are set, as `COMPLETION` takes them.

    Raises:
        InvalidParams, Unsupported: What is wrong with it, by name.
    """
    sampling = options.sampling(body)
    texts = [text for text in _prompts(body["prompt"]) for _ in range(body.get("n_cmpl", 1))]
    if len(texts) > _MOST_ASKS:
        raise _bad(f"makes {len(texts)} completions; at most {_MOST_ASKS} are made at a time")
    return [
        # Clients write their templates' tokens into the prompt.
        Ask("generate", model, {"prompt": text, "special": True}, sampling, autoload=autoload)
        for text in texts
    ]


def several(prompt: Any) -> bool:
    """Whether a prompt is a list of them, which is answered by a list."""
    return isinstance(prompt, list)


def _prompts(prompt: Any) -> list[str]:
    given: Sequence[Any] = prompt if isinstance(prompt, list) else [prompt]
    if not given:
        raise _bad("must not be an empty list")
    return [_text(one) for one in given]


def _text(prompt: Any) -> str:
    if isinstance(prompt, Mapping):
        if prompt.get("multimodal_data"):
            raise Unsupported(
                "pictures and sound in a prompt (multimodal_data) are not supported; send them in "
                "the messages of /v1/chat/completions",
                capability="vision",
            )
        prompt = prompt.get("prompt_string")
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, (int, list)) and not isinstance(prompt, bool):
        raise Unsupported(
            "a prompt of token ids is not supported; send its text (/detokenize)",
            capability="token_prompts",
        )
    raise _bad("must be a text or a list of texts")


@dataclass(frozen=True, slots=True)
class Infill:
    """What an editor wants filled in, and how.

    Attributes:
        before, after: The text around the gap.
        begun: What stands in the gap already.
        extra: Other files, each with its name.
    """

    before: str
    after: str
    begun: str
    extra: Sequence[tuple[str, str]]
    sampling: Mapping[str, Any]


def infill(body: Mapping[str, Any]) -> Infill:
    """What `/infill` asks.

    Raises:
        Unsupported: A parameter that no engine here has.
    """
    return Infill(
        body.get("input_prefix", ""),
        body.get("input_suffix", ""),
        body.get("prompt", ""),
        [(each.get("filename", ""), each["text"]) for each in body.get("input_extra", ())],
        options.sampling(body),
    )


def tokenize(body: Mapping[str, Any], model: str, *, autoload: bool) -> Ask:
    """What `/tokenize` asks.

    Raises:
        Unsupported: BOS before the text, or each token's text.
    """
    for name in ("add_special", "with_pieces"):
        if body.get(name):
            raise Unsupported(f"{name} is not supported; leave it out", capability=name)
    request = {"text": body["content"], "special": body.get("parse_special", True)}
    return Ask("tokenize", model, request, autoload=autoload)


def template(body: Mapping[str, Any], model: str, *, autoload: bool) -> Ask:
    """What `/apply-template` asks."""
    request = {
        "messages": body["messages"],
        "tools": body.get("tools") or None,
        "chat_template_kwargs": body.get("chat_template_kwargs", {}),
    }
    return Ask("apply_template", model, request, autoload=autoload)


def _bad(reason: str) -> InvalidParams:
    return InvalidParams(f"prompt {reason}", field="prompt", reason=reason)
