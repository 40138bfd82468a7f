"""A mapping that is seldom read and held ten thousand times: kept as compressed JSON.

The metadata of one model's header takes 4 KiB and dozens of objects as Python has it, and under
1 KiB and two objects so; with ten thousand models that is most of what the catalog holds, and what
every full garbage collection would have to look at.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

# The fastest level: a slower one takes a tenth less room.
_LEVEL = 1


class Packed(Mapping[str, Any]):
    """Equals the mapping that it was made of; every access unpacks, in some 20 microseconds."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Packed:
        """Pack a mapping that JSON can say.

        Raises:
            TypeError, ValueError: JSON cannot.
        """
        if isinstance(values, Packed):
            return values
        text = json.dumps(dict(values), separators=(",", ":"), allow_nan=False)
        return cls(zlib.compress(text.encode("ascii"), _LEVEL))

    def unpack(self) -> dict[str, Any]:
        """A new dictionary; for more than one access."""
        values: dict[str, Any] = json.loads(zlib.decompress(self.raw))
        return values

    def __getitem__(self, key: str) -> Any:
        return self.unpack()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.unpack())

    def __len__(self) -> int:
        return len(self.unpack())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Packed) and self.raw == other.raw:
            return True
        return self.unpack() == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __repr__(self) -> str:
        return f"Packed({self.unpack()!r})"
