"""A request's body: what a face takes of it, checked, and as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import FieldError, Struct
from hybridd.wire.errors import InvalidParams


def read(fields: Struct, body: Any) -> dict[str, Any]:
    """The fields of a body that are set: null is unset in every API that faces speak.

    Args:
        fields: An open one: names that a face does not know are left to it.

    Raises:
        InvalidParams: With the field at fault.
    """
    given = {name: value for name, value in (body or {}).items() if value is not None}
    try:
        return fields.check(given)
    except FieldError as exc:
        path = exc.path or "body"
        raise InvalidParams(f"{path} {exc}", field=path, reason=str(exc)) from None


def schema(fields: Struct) -> dict[str, Any]:
    """JSON Schema of the bodies that `read` takes."""
    described = fields.schema()
    properties = {
        name: each if name in fields.required else or_null(each)
        for name, each in described["properties"].items()
    }
    return {**described, "properties": properties}


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, or null."""
    if not schema:
        return {}  # any value is already
    if schema.get("anyOf"):
        others = [each for each in schema["anyOf"] if each != {"enum": [None]}]
        return {**schema, "anyOf": [*others, {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}
