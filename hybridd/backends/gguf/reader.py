"""A bounds-first reader of GGUF headers, versions 2 and 3, in pure Python.

It walks metadata and tensor table once, front to back, through a small buffer. Every length is
checked against the bytes that are left and against a named cap before it is used; arrays that
nothing here needs (vocabularies, merges, scores) are stepped over without being made. It knows
the container, not what the keys mean: that is `inspect`.

Bad content raises `ModelInvalid`; the format is documented in ggml's `docs/gguf.md`.
"""

from __future__ import annotations

import functools
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct, error
from typing import Any

from ..bounded import invalid, opened, read_at
from .shapes import MAX_SHAPE_BYTES, Shape, read_shape

# Real headers have under a hundred keys; llama.cpp's own imatrix files a few.
MAX_KEYS = 16_384
MAX_KEY_BYTES = 65_535  # the format's own limit
# Split mixtures of experts have some 50,000 tensors; an entry takes 2 us and 300 bytes to read.
MAX_TENSORS = 65_536
MAX_TENSOR_NAME_BYTES = 1024
# Gemma has 262,144 tokens and 514,906 merges; a string takes about 0.1 us to step over.
MAX_ARRAY_STRINGS = 2_000_000
# A tokenizer's JSON embedded in the header has up to 35 MiB.
MAX_HEADER_BYTES = 256 * 1024 * 1024
# What is kept of one string (chat templates have up to 30 KiB) and of everything with a name.
MAX_KEPT_STRING = 1024 * 1024
MAX_KEPT_BYTES = 8 * 1024 * 1024
_ITEM_BYTES = 64  # what one kept element of an array takes in Python
# Arrays up to this length are kept (values per layer, tags, languages); longer ones are counted.
MAX_KEPT_ARRAY = 1024
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 65_536

_FIRST_READ = 64 * 1024
# Larger buffers are mapped anew for every read, which took as long as reading.
_READ = 256 * 1024

_U32 = Struct("<I")
_U64 = Struct("<Q")
_MAX_TENSOR_BYTES = 8 + MAX_TENSOR_NAME_BYTES + MAX_SHAPE_BYTES + 8
# A model has a dozen shapes; more than this are no help and would take room.
_SHAPES = 1024
_STRING, _ARRAY = 8, 9
# Strings that one match of `_run` steps over; fewer would cost more calls.
_RUN = 256
_USUAL_LENGTH = 6
_SCALARS = {
    0: Struct("<B"),
    1: Struct("<b"),
    2: Struct("<H"),
    3: Struct("<h"),
    4: Struct("<I"),
    5: Struct("<i"),
    6: Struct("<f"),
    7: Struct("<?"),
    10: Struct("<Q"),
    11: Struct("<q"),
    12: Struct("<d"),
}


@dataclass(slots=True)
class Header:
    """What one GGUF file's header says.

    Attributes:
        version: The format's version.
        size: The file's size in bytes.
        metadata: Scalars, strings and short arrays by key; non-finite floats are None.
        counts: How many elements each array has, also of those that were stepped over.
        tensors: How many tensors the file holds.
        parameters: Their elements.
        tensor_bytes: Their bytes, without padding.
        by_type: Bytes by the tensor types' names.
        names: Every tensor's name with its dimensions, for the few that `inspect` looks at.
        end: Where the last tensor ends in the file.
    """

    version: int
    size: int
    metadata: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tensors: int = 0
    parameters: int = 0
    tensor_bytes: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    names: dict[str, tuple[int, ...]] = field(default_factory=dict)
    end: int = 0


class _Cursor:
    """A position in a file, with a buffer of the bytes that follow it."""

    __slots__ = ("buffer", "descriptor", "offset", "size", "start")

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = min(size, MAX_HEADER_BYTES)
        self.start = 0  # where the buffer begins in the file
        self.offset = 0  # where to read next, counted from `start`
        self.buffer = read_at(descriptor, 0, min(_FIRST_READ, self.size))

    @property
    def position(self) -> int:
        return self.start + self.offset

    @property
    def left(self) -> int:
        return self.size - self.position

    def need(self, count: int, what: str) -> int:
        """Have `count` bytes in the buffer; returns their offset in it and steps over them."""
        offset = self.offset
        if offset + count > len(self.buffer):
            if count > self.left:
                raise self.truncated(what)
            self.start += offset
            self.offset = offset = 0
            self.buffer = read_at(
                self.descriptor, self.start, min(max(count, _READ), self.size - self.start)
            )
            if count > len(self.buffer):
                raise self.truncated(what)
        self.offset = offset + count
        return offset

    def ahead(self, count: int) -> tuple[bytes, int]:
        """The buffer and the offset in it, with the next `count` bytes or all that are left."""
        end = self.start + len(self.buffer)
        if self.offset + count > len(self.buffer) and end < self.size:
            self.start += self.offset
            self.offset = 0
            wanted = min(max(count, _READ), self.size - self.start)
            self.buffer = read_at(self.descriptor, self.start, wanted)
        return self.buffer, self.offset

    def skip(self, count: int, what: str) -> None:
        """Step over bytes without reading them."""
        if count > self.left:
            raise self.truncated(what)
        self.offset += count
        if self.offset > len(self.buffer):
            self.start += self.offset
            self.offset = 0
            self.buffer = b""

    def truncated(self, what: str) -> Exception:
        if self.size == MAX_HEADER_BYTES:
            return invalid(f"the header has more than {MAX_HEADER_BYTES} bytes")
        return invalid(f"truncated: the file ends inside {what}")

    def unpack(self, struct: Struct, what: str) -> Any:
        offset = self.need(struct.size, what)
        return struct.unpack_from(self.buffer, offset)[0]

    def raw(self, count: int, what: str) -> bytes:
        offset = self.need(count, what)
        return self.buffer[offset : offset + count]

    def skip_strings(self, count: int, what: str) -> None:
        """Step over `count` strings, each a length and its bytes.

        This is where the time of a header goes: short strings are matched by hundreds, and for
        the others the loop leans on `unpack_from` to notice the buffer's end.
        """
        if count * 8 > self.left:
            raise self.truncated(what)
        buffer, offset, unpack = self.buffer, self.offset, _U64.unpack_from
        while count:
            try:
                while count >= _RUN and (found := _run().match(buffer, offset)):
                    offset = found.end()
                    count -= _RUN
                for _ in range(min(count, _RUN)):
                    (length,) = unpack(buffer, offset)
                    offset += 8 + length
                    count -= 1
            except (error, OverflowError):
                if self.start + offset + 8 > self.size:
                    raise self.truncated(what) from None
                self.start += offset
                offset = 0
                buffer = read_at(self.descriptor, self.start, min(_READ, self.size - self.start))
                if len(buffer) < 8:
                    raise self.truncated(what) from None
        if self.start + offset > self.size:
            raise self.truncated(what)
        self.buffer, self.offset = buffer, min(offset, len(buffer))
        if offset > len(buffer):
            self.start, self.offset, self.buffer = self.start + offset, 0, b""


@functools.cache
def _run() -> re.Pattern[bytes]:
    """Matches `_RUN` strings of under 256 bytes, three times as fast as the loop steps over them.

    A string is its length, 64 bits with the lowest byte first, and so many bytes; the lengths that
    most tokens have are tried first. Possessive, so that a mismatch is noticed at once.
    """
    lengths = sorted(range(256), key=lambda length: abs(length - _USUAL_LENGTH))
    zeros = rb"\0" * 7  # spelled out, for a counted repeat takes half as long again
    strings = (re.escape(bytes([n])) + zeros + b".{%d}" % n for n in lengths)
    return re.compile(b"(?s:%b){%d}+" % (b"|".join(strings), _RUN))


def read_header(path: Path) -> Header:
    """Read the header of the GGUF file at `path`.

    Raises:
        ModelInvalid: With `reason`, for anything that is wrong with the content.
        OSError: The file went away or cannot be read.
    """
    with opened(path) as (descriptor, size):
        return _Reader(_Cursor(descriptor, size), size).read()


class _Reader:
    def __init__(self, cursor: _Cursor, size: int) -> None:
        self.cursor = cursor
        self.header = Header(version=0, size=size)
        self.kept = 0
        self.strings = 0

    def read(self) -> Header:
        self.check_version()
        tensors = self.cursor.unpack(_U64, "the header")
        keys = self.cursor.unpack(_U64, "the header")
        if tensors > MAX_TENSORS:
            raise invalid(f"the header claims {tensors} tensors; at most {MAX_TENSORS} are read")
        if keys > MAX_KEYS:
            raise invalid(f"the header claims {keys} keys; at most {MAX_KEYS} are read")
        for _ in range(keys):
            self.read_pair()
        self.read_tensors(tensors)
        return self.header

    def check_version(self) -> None:
        magic = self.cursor.raw(4, "the magic number") if self.cursor.size >= 4 else b""
        if magic != b"GGUF":
            if magic[::-1] == b"GGUF":
                raise invalid("a big-endian GGUF file, which this machine's engine cannot read")
            if magic in (b"ggml", b"lmgg", b"tjgg", b"fmgg", b"algg"):
                raise invalid("a file of the GGML format that came before GGUF; convert it anew")
            if not magic.strip(b"\0"):
                raise invalid("truncated: the file is empty or starts with zeros")
            raise invalid("no GGUF file: the magic number is missing")
        version = self.cursor.unpack(_U32, "the version")
        if version & 0xFFFF == 0 and version:
            raise invalid("a big-endian GGUF file, which this machine's engine cannot read")
        if version not in (2, 3):
            raise invalid(f"GGUF version {version}; versions 2 and 3 are read")
        self.header.version = version

    def read_pair(self) -> None:
        length = self.cursor.unpack(_U64, "the metadata")
        if length > MAX_KEY_BYTES:
            raise invalid(f"a metadata key claims {length} bytes; at most {MAX_KEY_BYTES} are read")
        key = self.cursor.raw(length, "the metadata").decode("utf-8", "replace")
        if key in self.header.metadata or key in self.header.counts:
            raise invalid(f"the metadata key {key[:80]!r} occurs twice")
        self.keep(length)
        kind = self.cursor.unpack(_U32, "the metadata")
        if kind == _ARRAY:
            self.read_array(key)
        else:
            self.header.metadata[key] = self.read_value(kind, key)

    def read_value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.read_string(key)
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise invalid(f"the metadata key {key[:80]!r} has the unknown type {kind}")
        value = self.cursor.unpack(scalar, "the metadata")
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def read_string(self, key: str) -> str | None:
        length = self.cursor.unpack(_U64, "the metadata")
        if length > self.cursor.left:
            raise self.cursor.truncated(f"the string {key[:80]!r}")
        if length > MAX_KEPT_STRING:
            self.cursor.skip(length, "the metadata")
            return None
        self.keep(length)
        return self.cursor.raw(length, "the metadata").decode("utf-8", "replace")

    def read_array(self, key: str) -> None:
        kind = self.cursor.unpack(_U32, "the metadata")
        count = self.cursor.unpack(_U64, "the metadata")
        if kind == _STRING:
            self.strings += count
            if self.strings > MAX_ARRAY_STRINGS:
                raise invalid(f"the arrays hold more than {MAX_ARRAY_STRINGS} strings")
        elif kind not in _SCALARS:
            raise invalid(f"the array {key[:80]!r} has elements of the unusable type {kind}")
        width = 8 if kind == _STRING else _SCALARS[kind].size
        if count * width > self.cursor.left:
            raise self.cursor.truncated(f"the array {key[:80]!r}")
        self.header.counts[key] = count
        if count <= MAX_KEPT_ARRAY and not key.startswith("tokenizer.ggml."):
            self.keep(count * _ITEM_BYTES)
            self.header.metadata[key] = [self.read_value(kind, key) for _ in range(count)]
        elif kind == _STRING:
            self.cursor.skip_strings(count, f"the array {key[:80]!r}")
        else:
            self.cursor.skip(count * width, f"the array {key[:80]!r}")

    def keep(self, count: int) -> None:
        self.kept += count
        if self.kept > MAX_KEPT_BYTES:
            raise invalid(f"the metadata holds more than {MAX_KEPT_BYTES} bytes of text")

    def alignment(self) -> int:
        """What tensors' data begin at whole multiples of, in bytes."""
        said = self.header.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if (
            not isinstance(said, int)
            or isinstance(said, bool)
            or not 0 < said <= MAX_ALIGNMENT
            or said & (said - 1)
        ):
            raise invalid(
                f"the alignment {str(said)[:40]!r} is no power of two up to {MAX_ALIGNMENT}"
            )
        return said

    def read_tensors(self, count: int) -> None:
        """The tensor table.

        Most headers have hundreds of entries and little else, of a few shapes: each shape is
        checked once, and the loop does what is left.
        """
        header, cursor, alignment = self.header, self.cursor, self.alignment()
        if count * 32 > cursor.left:
            raise cursor.truncated("the tensor table")
        header.tensors = count
        names, by_type, unpack = header.names, header.by_type, _U64.unpack_from
        shapes: dict[bytes, Shape] = {}
        last = 0
        buffer, offset = cursor.ahead(_MAX_TENSOR_BYTES)
        try:
            for _ in range(count):
                if offset + _MAX_TENSOR_BYTES > len(buffer):
                    cursor.offset = offset
                    buffer, offset = cursor.ahead(_MAX_TENSOR_BYTES)
                (length,) = unpack(buffer, offset)
                if length > MAX_TENSOR_NAME_BYTES:
                    raise invalid(f"a tensor's name claims {length} bytes")
                offset += 8 + length
                name = buffer[offset - length : offset].decode("utf-8", "replace")
                self.keep(length)
                raw = buffer[offset : offset + 8 + 8 * buffer[offset]]
                shape = shapes.get(raw) or read_shape(raw, name)
                if len(shapes) < _SHAPES:
                    shapes[raw] = shape
                offset += len(raw) + 8
                (at,) = unpack(buffer, offset - 8)
                if at % alignment:
                    raise invalid(f"the tensor {name[:80]!r} is not aligned to {alignment} bytes")
                if name in names:
                    raise invalid(f"the tensor {name[:80]!r} occurs twice")
                names[name], elements, size, kind = shape
                header.parameters += elements
                header.tensor_bytes += size
                by_type[kind] = by_type.get(kind, 0) + size
                if at + size > last:
                    last = at + size
        except (error, IndexError):
            raise cursor.truncated("the tensor table") from None
        cursor.offset = offset
        if count:
            header.end = -(-cursor.position // alignment) * alignment + last


def starts_like_gguf(path: Path) -> bool:
    """Whether the file begins with GGUF's magic number."""
    with opened(path) as (descriptor, _):
        return os.pread(descriptor, 4, 0) == b"GGUF"
