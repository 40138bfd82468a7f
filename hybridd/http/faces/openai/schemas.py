"""What answers have, as JSON Schema for /openapi.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.http.faces.shared.bodies import or_null

Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANY: Schema = {}
_NULL: Schema = {"type": "null"}


def constant(value: str) -> dict[str, Any]:
    """One text."""
    return {"const": value}


def listed(item: Schema, at_least: int = 0) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": item, **({"minItems": at_least} if at_least else {})}


def record(required: Mapping[str, Schema], more: Mapping[str, Schema] | None = None) -> Schema:
    """An object that may have other fields too.

    Args:
        more: Fields that may be missing.
    """
    properties = {**required, **(more or {})}
    return {"type": "object", "properties": properties, "required": list(required)}


_NAMED = {"id": TEXT, "created": {"type": "integer"}, "model": TEXT}
_TOKENS = {"prompt_tokens": COUNT, "total_tokens": COUNT}
_USAGE = record(
    {
        **_TOKENS,
        "completion_tokens": COUNT,
        "prompt_tokens_details": record({"cached_tokens": COUNT}),
    }
)
_FINISH = {"enum": ["stop", "length", "tool_calls"]}
_CALL = record(
    {
        "id": TEXT,
        "type": constant("function"),
        "function": record({"name": TEXT, "arguments": TEXT}),
    }
)
_TOKEN = {"token": TEXT, "logprob": {"type": "number"}, "bytes": listed(COUNT)}
_CHAT_LOGPROBS = record(
    {"content": listed(record({**_TOKEN, "top_logprobs": listed(record(_TOKEN))}))}
)
_MESSAGE = record(
    {"role": constant("assistant"), "content": or_null(TEXT), "refusal": _NULL},
    {"reasoning_content": TEXT, "tool_calls": listed(_CALL, 1)},
)

MODEL = record(
    {
        "id": TEXT,
        "object": constant("model"),
        "created": {"type": "integer"},
        "owned_by": TEXT,
        "status": TEXT,
        "format": TEXT,
        "capabilities": listed(TEXT),
        "size_bytes": COUNT,
    },
    {"context_length": COUNT, "quantization": TEXT},
)
MODELS = record({"object": constant("list"), "data": listed(MODEL)})
CHAT = record(
    {
        **_NAMED,
        "object": constant("chat.completion"),
        "choices": listed(
            record(
                {
                    "index": COUNT,
                    "message": _MESSAGE,
                    "logprobs": or_null(_CHAT_LOGPROBS),
                    "finish_reason": _FINISH,
                }
            ),
            1,
        ),
        "usage": _USAGE,
    }
)
COMPLETION = record(
    {
        **_NAMED,
        "object": constant("text_completion"),
        "choices": listed(
            record(
                {
                    "index": COUNT,
                    "text": TEXT,
                    "logprobs": or_null(
                        record(
                            {
                                "tokens": listed(TEXT),
                                "token_logprobs": listed({"type": "number"}),
                                "top_logprobs": listed({"type": "object"}),
                                "text_offset": listed(COUNT),
                            }
                        )
                    ),
                    "finish_reason": _FINISH,
                }
            ),
            1,
        ),
        "usage": _USAGE,
    }
)
EMBEDDINGS = record(
    {
        "object": constant("list"),
        "model": TEXT,
        "data": listed(
            record(
                {
                    "object": constant("embedding"),
                    "index": COUNT,
                    "embedding": {"anyOf": [listed({"type": "number"}), TEXT]},
                }
            ),
            1,
        ),
        "usage": record(_TOKENS),
    }
)
RERANKING = record(
    {
        "id": TEXT,
        "model": TEXT,
        "results": listed(
            record(
                {"index": COUNT, "relevance_score": {"type": "number"}},
                {"document": {"type": "object"}},
            )
        ),
        "usage": record(_TOKENS),
        "meta": {"type": "object"},
    }
)
_ITEM = record(
    {
        "type": {"enum": ["message", "reasoning", "function_call"]},
        "id": TEXT,
        "status": {"enum": ["completed", "incomplete"]},
    },
    {
        "role": constant("assistant"),
        "content": listed({"type": "object"}),
        "call_id": TEXT,
        "name": TEXT,
        "namespace": TEXT,
        "arguments": TEXT,
    },
)
RESPONSE = record(
    {
        "id": TEXT,
        "object": constant("response"),
        "created_at": {"type": "integer"},
        "model": TEXT,
        "status": {"enum": ["completed", "incomplete"]},
        "output": listed(_ITEM, 1),
        "error": _NULL,
        "incomplete_details": or_null(record({"reason": TEXT})),
        "usage": record(
            {
                "input_tokens": COUNT,
                "input_tokens_details": record({"cached_tokens": COUNT}),
                "output_tokens": COUNT,
                "output_tokens_details": record({"reasoning_tokens": COUNT}),
                "total_tokens": COUNT,
            }
        ),
    }
)
