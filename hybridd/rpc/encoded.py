"""Messages as bytes, and results that were encoded before they were asked for.

A list of ten thousand models has seven megabytes of JSON. Encoding it at once would hold the loop
for 150 ms, so each model is encoded once, and a reply is put together from what is there while it
is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hybridd.core.model import ModelRecord
from hybridd.wire import protocol
from hybridd.wire.errors import HybriddError, InternalError
from hybridd.wire.framing import encode_line

# Some 48 KiB of models.
_ITEMS_OF_PIECE = 64

log = logging.getLogger(__name__)


class Pieces(NamedTuple):
    """A line that is put together piece by piece, as it is sent.

    One of seven megabytes would be copied several times and held the loop for 7 ms or more.

    Attributes:
        size: Bytes of all of them.
        rest: Those that were not taken yet.
    """

    size: int
    rest: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class EncodedList:
    """A result with one long list in it: `{**fields, name: items}`; the items are JSON already."""

    fields: Mapping[str, Any]
    name: str
    items: Sequence[bytes]

    def within(self, before: bytes, after: bytes) -> Pieces:
        """The result's JSON between what comes before and after it on its line."""
        begun = encode_line({**self.fields, self.name: []})[: -len(b"]}\n")]
        size = sum(map(len, self.items)) + max(0, len(self.items) - 1)
        ends = len(before) + len(begun) + len(b"]}") + len(after)
        return Pieces(ends + size, self._pieces(before + begun, b"]}" + after))

    def _pieces(self, first: bytes, last: bytes) -> Iterator[bytes]:
        yield first
        for at in range(0, len(self.items), _ITEMS_OF_PIECE):
            piece = b",".join(self.items[at : at + _ITEMS_OF_PIECE])
            yield b"," + piece if at else piece
        yield last


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


def encode_response(response: dict[str, Any]) -> bytes:
    """The response's line; an error in its place if JSON cannot carry it: a bug of its maker."""
    line = response_line(response)
    return b"".join(line.rest) if isinstance(line, Pieces) else line


def response_line(response: dict[str, Any]) -> bytes | Pieces:
    """The same line, a long list's in pieces."""
    try:
        result = response.get("result")
        if isinstance(result, EncodedList):
            envelope = encode_line({k: v for k, v in response.items() if k != "result"})
            return result.within(envelope.removesuffix(b"}\n") + b',"result":', b"}\n")
        return encode_line(response)
    except (ValueError, TypeError, RecursionError):
        log.exception("a result cannot be sent")
        error = InternalError("the result cannot be sent; the daemon's log has the details")
        return encode_error(response["id"], error)


def encode_error(id: int | str | None, error: HybriddError) -> bytes:
    """The line of an error response."""
    return encode_line(protocol.error_response(id, error.to_wire()))
