"""A request's body, checked against the fields that a face takes of it."""

from __future__ import annotations

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
