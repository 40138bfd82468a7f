"""From record classes to JSON Schema: what results and notifications look like.

Types are the annotations', meanings the `Attributes` of the docstrings. Nothing is required: what
is null or empty may be left out.
"""

from __future__ import annotations

import inspect
import re
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from hybridd.rpc.records import WITHIN
from hybridd.wire.record import Record

_PLAIN: dict[Any, dict[str, Any]] = {
    Any: {},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    NoneType: {"type": "null"},
}
_ENTRY = re.compile(r"^(\w+(?:, \w+)*): ")


class Schemas:
    """Schemas of types; each record's is made once, in `components`, and referred to."""

    def __init__(self) -> None:
        self.components: dict[str, dict[str, Any]] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type: a record, a plain type, or lists, maps and unions of them."""
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        origin, inner = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(part) for part in inner]}
        if origin is list:
            return {"type": "array", "items": self.of(inner[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(inner[1])}
        assert issubclass(kind, Record), kind
        if kind.__name__ not in self.components:
            self.components[kind.__name__] = {}  # its own fields may hold it
            self.components[kind.__name__] = self._record(kind)
        return {"$ref": f"#/components/schemas/{kind.__name__}"}

    def _record(self, record: type[Record]) -> dict[str, Any]:
        # What `wire` imports for type checkers only.
        hints = get_type_hints(record, localns={"Any": Any, "ClassVar": ClassVar})
        told = {k: v for base in reversed(record.__mro__) for k, v in meanings(base).items()}
        fields = {}
        for name in record._fields:
            schema = self.of(WITHIN.get((record, name), hints[name]))
            fields[name] = {**schema, "description": told.get(name, "")}
        summary = (inspect.getdoc(record) or "").split("\n\n")[0]
        return {
            "type": "object",
            "description": " ".join(summary.split()),
            "properties": fields,
        }


def meanings(record: type) -> dict[str, str]:
    """What the `Attributes` of a class's docstring say of each."""
    text = inspect.cleandoc(record.__doc__ or "").partition("Attributes:\n")[2]
    made: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        if entry := _ENTRY.match(line):
            names = entry[1].split(", ")
            line = line[entry.end() :]
        made.update({name: f"{made.get(name, '')} {line.strip()}".strip() for name in names})
    return made
