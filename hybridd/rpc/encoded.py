"""Messages as bytes, and results that were encoded before they were asked for.

A list of ten thousand models has seven megabytes of JSON. Encoding it at once would hold the loop
for 150 ms, so each model is encoded once and a reply is put together from what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.wire import protocol
from hybridd.wire.errors import HybriddError, InternalError
from hybridd.wire.framing import encode_line

# Some 48 KiB of models.
_ITEMS_OF_PIECE = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedList:
    """A result with one long list in it: `{**fields, name: items}`; the items are JSON already."""

    fields: Mapping[str, Any]
    name: str
    items: Sequence[bytes]

    def parts(self) -> list[bytes]:
        """The result's JSON, in pieces that are one after the other.

        One piece of seven megabytes would be copied several times, which held the loop for 16 ms
        the first time.
        """
        rest = {**self.fields, self.name: []}
        made = [encode_line(rest)[: -len(b"]}\n")]]
        for at in range(0, len(self.items), _ITEMS_OF_PIECE):
            piece = b",".join(self.items[at : at + _ITEMS_OF_PIECE])
            made.append(b"," + piece if at else piece)
        return [*made, b"]}"]


class EncodedModels:
    """Every model's JSON as the catalog has it, made when it is asked for first."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[ModelRecord, bytes]] = {}

    def get(self, record: ModelRecord) -> bytes:
        """A model's JSON; records never change, so the same one is never encoded twice."""
        known = self._made.get(record.id)
        if known is None or known[0] is not record:
            known = self._made[record.id] = (record, encode_line(record.to_wire())[:-1])
        return known[1]

    def keep_only(self, models: Mapping[str, ModelRecord]) -> None:
        """Forget models that are gone."""
        if len(self._made) > len(models):
            self._made = {id: made for id, made in self._made.items() if id in models}


_NUMBERS = b"0123456789+-.e,"


def as_numbers(text: str) -> bytes:
    """A list of numbers that a worker wrote as JSON, to be passed on unread.

    Raises:
        ValueError: There is something else in it: a worker's word is not taken for it.
    """
    data = text.encode("ascii")
    if data.translate(None, _NUMBERS) != b"[]" or data[:1] != b"[" or data[-1:] != b"]":
        raise ValueError("a worker sent a vector that is no list of numbers")
    return data


def encode_response(response: dict[str, Any]) -> bytes:
    """The response's line; an error in its place if JSON cannot carry it: a bug of its maker."""
    return b"".join(response_parts(response))


def response_parts(response: dict[str, Any]) -> list[bytes]:
    """The same line in pieces, many of them only where it is a long list's."""
    try:
        result = response.get("result")
        if isinstance(result, EncodedList):
            envelope = encode_line({k: v for k, v in response.items() if k != "result"})
            return [envelope.removesuffix(b"}\n") + b',"result":', *result.parts(), b"}\n"]
        return [encode_line(response)]
    except (ValueError, TypeError, RecursionError):
        log.exception("a result cannot be sent")
        error = InternalError("the result cannot be sent; hybridd's log has the details")
        return [encode_error(response["id"], error)]


def encode_error(id: int | str | None, error: HybriddError) -> bytes:
    """The line of an error response."""
    return encode_line(protocol.error_response(id, error.to_wire()))
