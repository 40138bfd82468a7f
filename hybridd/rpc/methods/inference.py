"""`generate`, `chat`, `embed`, `rerank`, `tokenize` and its kin: what models are for."""

from __future__ import annotations

import math
from typing import Annotated, Any

from hybridd.core.fields import Bool, Field, Int, ListOf, MapOf, OneOf, Text
from hybridd.core.options import LOAD_FIELD, MESSAGES, SAMPLING_FIELD, TOOLS
from hybridd.core.unit_fields import Duration
from hybridd.rpc.call import Call
from hybridd.rpc.encoded import EncodedList, as_numbers
from hybridd.rpc.methods.models import MODEL
from hybridd.rpc.registry import method
from hybridd.wire.errors import Unsupported

Options = Annotated[dict[str, Any] | None, SAMPLING_FIELD]
LoadOptions = Annotated[dict[str, Any] | None, LOAD_FIELD]
Keepalive = Annotated[float | None, Duration()]
Timeout = Annotated[float | None, Duration()]
_ANY_OBJECT = MapOf(Field(), max_length=256)
ResponseFormat = Annotated[dict[str, Any] | None, _ANY_OBJECT]
# Which ids there are is the model's to say: the echo format's do not fit 32 bits.
TOKENS = ListOf(Int(0, 2**63 - 1))
_TEXTS = ListOf(Text(), min_length=1)


def _common(
    options: dict[str, Any] | None,
    load_options: dict[str, Any] | None,
    keepalive: float | None,
    timeout: float | None,
) -> dict[str, Any]:
    return {
        "options": options,
        "load_options": load_options,
        "keepalive": keepalive,
        "timeout_s": None if timeout == math.inf else timeout,
    }


def _no_format(response_format: dict[str, Any] | None) -> None:
    if response_format is not None and response_format.get("type") != "text":
        raise Unsupported(
            "constrained output (response_format) is not supported yet; "
            "leave it out or ask for the type text",
            capability="response_format",
        )


@method("generate")
async def generate(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    prompt: Annotated[str, Text()],
    stream: Annotated[bool, Bool()] = False,
    options: Options = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
    response_format: ResponseFormat = None,
) -> dict[str, Any]:
    """Go on from a plain prompt; text is text, no special tokens are read from it."""
    _no_format(response_format)
    return await call.daemon.manager.infer(
        "generate",
        model,
        {"prompt": prompt},
        sink=call.sink() if stream else None,
        **_common(options, load_options, keepalive, timeout),
    )


@method("chat")
async def chat(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    messages: Annotated[list[dict[str, Any]], MESSAGES],
    tools: Annotated[list[dict[str, Any]] | None, TOOLS] = None,
    tool_choice: Annotated[Any, OneOf((Text(1, 64), _ANY_OBJECT))] = None,
    stream: Annotated[bool, Bool()] = False,
    options: Options = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
    response_format: ResponseFormat = None,
    chat_template_kwargs: Annotated[dict[str, Any] | None, _ANY_OBJECT] = None,
) -> dict[str, Any]:
    """Answer a conversation, through the model's own chat template."""
    _no_format(response_format)
    if tool_choice not in (None, "auto", "none"):
        raise Unsupported(
            "forcing a tool (tool_choice) is not supported yet; leave it out",
            capability="tool_choice",
        )
    return await call.daemon.manager.infer(
        "chat",
        model,
        {
            "messages": messages,
            "tools": None if tool_choice == "none" else tools,
            "chat_template_kwargs": chat_template_kwargs or {},
        },
        sink=call.sink() if stream else None,
        **_common(options, load_options, keepalive, timeout),
    )


@method("embed")
async def embed(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    input: Annotated[str | list[str], OneOf((Text(), _TEXTS))],
    dimensions: Annotated[int | None, Int(1, 2**31 - 1)] = None,
    normalize: Annotated[bool, Bool()] = True,
    options: Options = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> EncodedList:
    """One vector for each text, of length 1 unless `normalize` is false."""
    texts = [input] if isinstance(input, str) else input
    result = await call.daemon.manager.infer(
        "embed",
        model,
        {"input": texts, "dimensions": dimensions, "normalize": normalize},
        **_common(options, load_options, keepalive, timeout),
    )
    vectors = result.pop("embeddings")
    return EncodedList(result, "embeddings", list(map(as_numbers, vectors)))


@method("rerank")
async def rerank(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    query: Annotated[str, Text()],
    documents: Annotated[list[str], _TEXTS],
    top_n: Annotated[int | None, Int(1, 2**31 - 1)] = None,
    options: Options = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> dict[str, Any]:
    """How well each document answers the query, the best first; `top_n` keeps the best ones."""
    return await call.daemon.manager.infer(
        "rerank",
        model,
        {"query": query, "documents": documents, "top_n": top_n},
        **_common(options, load_options, keepalive, timeout),
    )


@method("tokenize")
async def tokenize(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    text: Annotated[str, Text()],
    special: Annotated[bool, Bool()] = False,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> dict[str, Any]:
    """A text's tokens; `special` reads special tokens from the text."""
    return await call.daemon.manager.infer(
        "tokenize",
        model,
        {"text": text, "special": special},
        **_common(None, load_options, keepalive, timeout),
    )


@method("detokenize")
async def detokenize(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    tokens: Annotated[list[int], TOKENS],
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> dict[str, Any]:
    """The text of tokens."""
    return await call.daemon.manager.infer(
        "detokenize",
        model,
        {"tokens": tokens},
        **_common(None, load_options, keepalive, timeout),
    )


@method("apply_template")
async def apply_template(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    messages: Annotated[list[dict[str, Any]], MESSAGES],
    tools: Annotated[list[dict[str, Any]] | None, TOOLS] = None,
    chat_template_kwargs: Annotated[dict[str, Any] | None, _ANY_OBJECT] = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> dict[str, Any]:
    """The prompt that a conversation becomes."""
    return await call.daemon.manager.infer(
        "apply_template",
        model,
        {
            "messages": messages,
            "tools": tools,
            "chat_template_kwargs": chat_template_kwargs or {},
        },
        **_common(None, load_options, keepalive, timeout),
    )
