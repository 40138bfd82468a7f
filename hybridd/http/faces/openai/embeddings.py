"""`/v1/embeddings`: vectors as numbers, or packed in base64 as OpenAI's clients ask by default."""

from __future__ import annotations

import base64
import json
import sys
from array import array
from collections.abc import Mapping
from typing import Any

import trio

from hybridd.core.fields import Choice, Field, ListOf, OneOf, Struct, Text
from hybridd.core.requests import COUNT, TOKENS
from hybridd.core.vectors import as_numbers
from hybridd.http.faces.api import Answer, Ask, Call, Reply
from hybridd.http.faces.openai.options import COMMON, ask
from hybridd.http.faces.shared import bodies
from hybridd.http.faces.shared.together import results
from hybridd.wire.errors import InvalidParams
from hybridd.wire.framing import encode_line

_MOST_INPUTS = 10_000
_FIELDS: Mapping[str, Field] = {
    **COMMON,
    "input": OneOf(
        (
            Text(),
            ListOf(Text(), min_length=1, max_length=_MOST_INPUTS),
            TOKENS,
            ListOf(TOKENS, min_length=1, max_length=_MOST_INPUTS),
        )
    ),
    "encoding_format": Choice(("float", "base64")),
    "dimensions": COUNT,
}
BODY = Struct(_FIELDS, required=("model", "input"), open=True, what="an embedding request")


async def embeddings(call: Call) -> Answer:
    """One vector for each input, in their order."""
    body = bodies.read(BODY, call.body)
    texts = await _texts(call, body)
    request = {"input": texts, "dimensions": body.get("dimensions")}
    made = await call.infer(ask("embed", body, request, {}, call.autoload))
    packed = body.get("encoding_format") == "base64"
    entries: list[bytes] = []
    for index, vector in enumerate(made["embeddings"]):
        value = encode_line(_packed(vector))[:-1] if packed else as_numbers(vector)
        entries.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (index, value))
        await trio.lowlevel.checkpoint()  # a thousand vectors must not hold the loop
    spent = made.get("usage", {}).get("prompt_tokens", 0)
    rest = encode_line(
        {
            "object": "list",
            "model": made["model"],
            "usage": {"prompt_tokens": spent, "total_tokens": spent},
        }
    )
    return Reply(rest.removesuffix(b"}\n") + b',"data":[%b]}' % b",".join(entries))


async def _texts(call: Call, body: Mapping[str, Any]) -> list[str]:
    """The inputs as texts; tokens are what the model's own tokenizer makes of them."""
    given = body["input"]
    if isinstance(given, str):
        return [given]
    if not given:
        raise InvalidParams("input is empty", field="input", reason="is empty")
    lists = [given] if isinstance(given[0], int) else given
    if isinstance(lists[0], str):
        return list(lists)
    asks = [
        Ask("detokenize", body["model"], {"tokens": tokens}, autoload=call.autoload)
        for tokens in lists
    ]
    return [each["text"] for each in await results(call, asks)]


def _packed(vector: str) -> str:
    """A vector's numbers as little-endian 32-bit floats in base64."""
    numbers = array("f", json.loads(as_numbers(vector)))
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
