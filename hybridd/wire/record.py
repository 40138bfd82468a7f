"""What a typed object of the wire is: attributes with defaults, made from a reply and back.

`Record` stands in for a dataclass, whose import alone would double the CLI's start-up. A record
made from a reply ignores fields it does not know and gives absent ones their default, as
docs/protocol.md asks of every client; unknown fields stay reachable in `raw`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform():
        """At run time the decorator only has to vanish."""
        return lambda made: made


@dataclass_transform()
class Record:
    """Base of the typed results: keyword arguments in, attributes out."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _nested: ClassVar[dict[str, tuple[type[Record], bool]]] = {}
    raw: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        # inspect.get_annotations would cost the CLI an import.
        annotated = cls.__dict__.get("__annotations__", {})  # noqa: RUF063
        own = tuple(n for n in annotated if not n.startswith("_"))
        cls._fields = cls._fields + own

    def __init__(self, **values: Any) -> None:
        for name in self._fields:
            if name in values:
                setattr(self, name, values[name])
            elif hasattr(type(self), name):
                default = getattr(type(self), name)
                if isinstance(default, (list, dict)):
                    default = type(default)(default)
                elif isinstance(default, Record):
                    default = type(default)()
                setattr(self, name, default)
            else:
                setattr(self, name, None)

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> Self:
        """Make the record of a reply's object."""
        values = {k: v for k, v in data.items() if k in cls._fields}
        for name, (kind, many) in cls._nested.items():
            value = values.get(name)
            if many and isinstance(value, list):
                values[name] = [kind.from_wire(v) for v in value]
            elif isinstance(value, dict):
                values[name] = kind.from_wire(value)
        made = cls(**values)
        made.__dict__["raw"] = data
        return made

    def to_wire(self) -> dict[str, Any]:
        """The object as it crosses the socket; fields that are None are left out."""

        def plain(value: Any) -> Any:
            if isinstance(value, Record):
                return value.to_wire()
            return [plain(v) for v in value] if isinstance(value, list) else value

        return {n: plain(v) for n in self._fields if (v := getattr(self, n)) is not None}

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{n}={v!r}" for n in self._fields if (v := getattr(self, n)) not in (None, [], {})
        )
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, n) == getattr(other, n) for n in self._fields
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, like a dataclass with eq
