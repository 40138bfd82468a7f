"""`/v1/embeddings`: vectors as numbers, or packed in base64 as OpenAI's clients ask by default."""

from __future__ import annotations

import base64
import json
import sys
from array import array
from collections.abc import Mapping

import trio

from hybridd.core.fields import Choice, Field, Struct
from hybridd.core.requests import COUNT
from hybridd.core.vectors import as_numbers
from hybridd.http.faces.api import Answer, Call, Reply
from hybridd.http.faces.openai import token_ids
from hybridd.http.faces.openai.options import COMMON, ask
from hybridd.http.faces.shared import bodies
from hybridd.wire.framing import encode_line

_MOST_INPUTS = 10_000
_FIELDS: Mapping[str, Field] = {
    **COMMON,
    "input": token_ids.texts_or_tokens(_MOST_INPUTS),
    "encoding_format": Choice(("float", "base64")),
    "dimensions": COUNT,
}
BODY = Struct(_FIELDS, required=("model", "input"), open=True, what="an embedding request")


async def embeddings(call: Call) -> Answer:
    """One vector for each input, in their order."""
    body = bodies.read(BODY, call.body)
    texts = await token_ids.texts(call, body, "input")
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


def _packed(vector: str) -> str:
    """A vector's numbers as little-endian 32-bit floats in base64."""
    numbers = array("f", json.loads(as_numbers(vector)))
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
