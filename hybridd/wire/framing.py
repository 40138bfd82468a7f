"""Newline-delimited JSON, both ways: bytes in, lines out, with both limits kept before parsing.

Sans-IO. `LineDecoder` holds at most one unfinished line of `max_line_bytes`; a longer one raises
`LineTooLong` and its bytes are dropped, so a refused line costs bounded memory.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from json.encoder import encode_basestring, encode_basestring_ascii

from .errors import LineTooLong, ParseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# 16 MiB holds a prompt of some four million tokens' text; a chat client's largest legal message
# (an image as a data URL) fits as well.
MAX_LINE_BYTES = 16 * 1024 * 1024
# A Python object costs 50 to 100 bytes: 200,000 values bound one line's parse to some 20 MiB.
MAX_LINE_VALUES = 200_000
# Deeper than any schema or message; far from the interpreter's limit of recursion, so that what
# was parsed once can also be checked, passed on and encoded wherever that happens.
MAX_DEPTH = 256

# A JSON string, also one that never ends: always matches at a quote, so the scan stays linear.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)


class LineDecoder:
    """Splits a byte stream into lines.

    Args:
        max_line_bytes: Bytes that one line may have without its newline.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._limit = max_line_bytes

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes."""
        self._buffer += data

    def next_line(self) -> bytes | None:
        """Return the next whole line without its newline, or None when more bytes are needed.

        Raises:
            LineTooLong: The line passed the limit; everything buffered was dropped.
        """
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if self._searched > self._limit:
                self._drop()
            return None
        if end > self._limit:
            self._drop()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def rest(self) -> bytes:
        """Take out what is left without a newline, once no more bytes will come."""
        left, self._buffer, self._searched = bytes(self._buffer), bytearray(), 0
        return left

    @property
    def pending_bytes(self) -> int:
        """Bytes held back until their line is complete."""
        return len(self._buffer)

    def _drop(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        raise LineTooLong(
            f"a line may have at most {self._limit} bytes; send less in one request",
            limit_bytes=self._limit,
        )


def count_values(line: bytes, enough: int) -> int:
    """Count an upper bound of the JSON values in `line` without parsing it.

    Every value but the first is preceded by a comma, a colon or an opening bracket outside of a
    string. The cheap count includes strings; only past `enough` are they cut out.
    """

    def structural(text: bytes) -> int:
        return 1 + text.count(b",") + text.count(b":") + text.count(b"[") + text.count(b"{")

    count = structural(line)
    return count if count <= enough else structural(_STRING.sub(b"", line))


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LEVEL = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def _depth(line: bytes) -> int:
    """How deep `line` is nested at most; the brackets in its strings count only past the limit."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return 0
    brackets = _STRING.sub(b"", line).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_LEVEL.__getitem__, brackets)), default=0)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (_INFINITE, -_INFINITE):
        raise ValueError(f"the number {text[:80]} is too large")
    return number


_INFINITE = float("inf")


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:80]!r} stands twice in one object")
            seen.add(key)
    return made


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_pairs
)


def decode_line(line: bytes, max_values: int = MAX_LINE_VALUES, what: str = "line") -> Any:
    """Parse one line of strict JSON.

    NaN, infinities (also `1e999`), duplicate keys, nesting past `MAX_DEPTH` and integers past the
    interpreter's digit limit are refused as a parse error, as is text that is no UTF-8.

    Args:
        what: What errors call it.

    Raises:
        LineTooLong: More than `max_values` values.
        ParseError: No JSON.
    """
    # Neither can be more than the bytes, which is all that has to be asked of a short line.
    if len(line) > max_values and count_values(line, max_values) > max_values:
        raise LineTooLong(
            f"a {what} may have at most {max_values} JSON values; send less in one request",
            limit_values=max_values,
        )
    if len(line) > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise ParseError(f"the {what} is nested deeper than {MAX_DEPTH} levels")
    try:
        return _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise ParseError(f"the {what} is no UTF-8 (byte {exc.start})") from None
    except ValueError as exc:
        raise ParseError(f"the {what} is no JSON: {exc}") from None


_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_ENCODE_ASCII = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def encode_line(message: Any) -> bytes:
    """Encode one message as a line with its newline.

    Raises:
        ValueError: A NaN or an infinity: a bug of the sender.
    """
    try:
        return _ENCODE(message).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        # A lone surrogate (a file name that is no UTF-8, say) is legal in JSON only as an escape.
        return _ENCODE_ASCII(message).encode("ascii") + b"\n"


def encode_text(text: str) -> bytes:
    """Encode one string as `encode_line` would, without the newline and in a sixth of the time."""
    try:
        return encode_basestring(text).encode("utf-8")
    except UnicodeEncodeError:
        return encode_basestring_ascii(text).encode("ascii")
