"""`generate`, `chat`, `embed`, `rerank`, `tokenize` and its kin: what models are for."""

from __future__ import annotations

import math
from typing import Annotated, Any

from hybridd.core.fields import Bool, OneOf, Text
from hybridd.core.options import MESSAGES, SAMPLING_FIELD, TOOLS
from hybridd.core.requests import ANY_OBJECT, COUNT, TEXTS, TOKENS
from hybridd.core.unit_fields import Duration
from hybridd.core.vectors import as_numbers
from hybridd.rpc import results
from hybridd.rpc.call import Call
from hybridd.rpc.encoded import EncodedList
from hybridd.rpc.methods.models import LOADING, Keepalive, LoadOptions, Model
from hybridd.rpc.registry import method
from hybridd.wire import types
from hybridd.wire.errors import ContextExceeded, NotLoaded, RequestTimeout, Unsupported

REQUEST = (*LOADING, NotLoaded, RequestTimeout)
COMPUTING = (*REQUEST, ContextExceeded)

Options = Annotated[dict[str, Any] | None, SAMPLING_FIELD, "How to generate."]
NoOptions = Annotated[
    dict[str, Any] | None, SAMPLING_FIELD, "Checked as for other requests; none of it matters here."
]
Timeout = Annotated[
    float | None,
    Duration(),
    "A duration for all of it: waiting, loading, computing; else there is no limit.",
]
ResponseFormat = Annotated[
    dict[str, Any] | None, ANY_OBJECT, '`{"type":"text"}`; other types are `unsupported`.'
]
Stream = Annotated[bool, Bool(), "Sends the text as `$/stream` while it is generated."]
Messages = Annotated[
    list[dict[str, Any]],
    MESSAGES,
    "The conversation, in OpenAI's shape.",
]
Tools = Annotated[
    list[dict[str, Any]] | None,
    TOOLS,
    "Tools in OpenAI's shape, for a template that knows them; calls come as text.",
]
TemplateArguments = Annotated[
    dict[str, Any] | None, ANY_OBJECT, "Variables for the model's chat template."
]


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


@method("generate", result=types.Completion, errors=COMPUTING)
async def generate(
    call: Call,
    *,
    model: Model,
    prompt: Annotated[str, Text(), "What to go on from."],
    stream: Stream = False,
    options: Options = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
    response_format: ResponseFormat = None,
) -> dict[str, Any]:
    """Go on from a plain prompt.

    The model's first token (BOS) is added where it has one; no special tokens are read from the
    prompt.
    """
    _no_format(response_format)
    return await call.daemon.manager.infer(
        "generate",
        model,
        {"prompt": prompt},
        sink=call.sink() if stream else None,
        **_common(options, load_options, keepalive, timeout),
    )


@method("chat", result=types.ChatCompletion, errors=COMPUTING)
async def chat(
    call: Call,
    *,
    model: Model,
    messages: Messages,
    tools: Tools = None,
    tool_choice: Annotated[
        Any,
        OneOf((Text(1, 64), ANY_OBJECT)),
        "`auto`, or `none`, which leaves the tools out; others are `unsupported`.",
    ] = None,
    stream: Stream = False,
    options: Options = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
    response_format: ResponseFormat = None,
    chat_template_kwargs: TemplateArguments = None,
) -> dict[str, Any]:
    """Answer a conversation, through the model's own chat template.

    No special tokens are read from what messages say, and BOS is never doubled.
    """
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


@method("embed", result=types.Embeddings, errors=COMPUTING)
async def embed(
    call: Call,
    *,
    model: Model,
    input: Annotated[str | list[str], OneOf((Text(), TEXTS)), "One text, or several."],
    dimensions: Annotated[
        int | None, COUNT, "So many numbers of each vector, the first; else all."
    ] = None,
    normalize: Annotated[bool, Bool(), "Whether vectors have length 1."] = True,
    options: NoOptions = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> EncodedList:
    """One vector for each text, in their order.

    A text that is longer than the model takes is `context_exceeded`, never cut.
    """
    texts = [input] if isinstance(input, str) else input
    result = await call.daemon.manager.infer(
        "embed",
        model,
        {"input": texts, "dimensions": dimensions, "normalize": normalize},
        **_common(options, load_options, keepalive, timeout),
    )
    vectors = result.pop("embeddings")
    return EncodedList(result, "embeddings", list(map(as_numbers, vectors)))


@method("rerank", result=types.Reranking, errors=COMPUTING)
async def rerank(
    call: Call,
    *,
    model: Model,
    query: Annotated[str, Text(), "The question."],
    documents: Annotated[list[str], TEXTS, "The texts."],
    top_n: Annotated[int | None, COUNT, "Only so many, the best; else all."] = None,
    options: NoOptions = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> dict[str, Any]:
    """How well each document answers the query, the best first."""
    return await call.daemon.manager.infer(
        "rerank",
        model,
        {"query": query, "documents": documents, "top_n": top_n},
        **_common(options, load_options, keepalive, timeout),
    )


@method("tokenize", result=results.Tokens, errors=REQUEST)
async def tokenize(
    call: Call,
    *,
    model: Model,
    text: Annotated[str, Text(), "The text."],
    special: Annotated[bool, Bool(), "Whether special tokens are read from it."] = False,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> dict[str, Any]:
    """A text's tokens, without a BOS of its own."""
    return await call.daemon.manager.infer(
        "tokenize",
        model,
        {"text": text, "special": special},
        **_common(None, load_options, keepalive, timeout),
    )


@method("detokenize", result=results.PlainText, errors=REQUEST)
async def detokenize(
    call: Call,
    *,
    model: Model,
    tokens: Annotated[list[int], TOKENS, "Their ids."],
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


@method("apply_template", result=results.Prompt, errors=REQUEST)
async def apply_template(
    call: Call,
    *,
    model: Model,
    messages: Messages,
    tools: Tools = None,
    chat_template_kwargs: TemplateArguments = None,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    timeout: Timeout = None,
) -> dict[str, Any]:
    """The prompt that a conversation becomes, by the model's own chat template."""
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
