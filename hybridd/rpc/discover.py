"""`rpc.discover`: an OpenRPC document, made from the methods' own signatures and records.

Beside what OpenRPC has: `x-errors` (kinds that every request can meet), `x-notifications` and
`x-events`. docs/protocol.md says the same in words; its tables are made from this document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd import __version__
from hybridd.rpc.notifications import EVENTS, NOTIFICATIONS
from hybridd.rpc.records import Plan
from hybridd.rpc.registry import Method, Parameter
from hybridd.rpc.schemas import Schemas
from hybridd.wire import errors

# What any request can meet, whatever its method.
EVERYWHERE = (
    errors.ParseError,
    errors.InvalidRequest,
    errors.LineTooLong,
    errors.MethodNotFound,
    errors.InvalidParams,
    errors.InternalError,
    errors.Busy,
    errors.ShuttingDown,
    errors.SlowConsumer,
    errors.Cancelled,
)


def document(methods: Mapping[str, Method]) -> dict[str, Any]:
    """The whole document."""
    schemas = Schemas()
    schemas.of(Plan)  # the one fact of an error that is a record
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "hybridd",
            "version": __version__,
            "description": "One local daemon for every language model on this machine.",
        },
        "methods": [_method(methods[name], schemas) for name in sorted(methods)],
        "x-errors": _references(EVERYWHERE),
        "x-notifications": [
            {
                "name": notification.name,
                "sender": notification.sender,
                "summary": notification.meaning,
                "params": schemas.of(notification.params),
            }
            for notification in NOTIFICATIONS
        ],
        "x-events": [kind.to_wire() for kind in EVENTS],
        "components": {
            "schemas": schemas.components,
            "errors": {
                kind: _error(made)
                for kind, made in sorted(errors.BY_KIND.items())
                if made is not errors.HybriddError
            },
        },
    }


def _method(method: Method, schemas: Schemas) -> dict[str, Any]:
    result = {"type": "object"} if method.result is None else schemas.of(method.result)
    return {
        "name": method.name,
        "summary": method.summary,
        "description": method.description,
        "paramStructure": "by-name",
        "params": [_parameter(parameter) for parameter in method.parameters.values()],
        "result": {"name": "result", "schema": result},
        "errors": _references(method.errors),
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    default = {} if parameter.default is None else {"default": parameter.default}
    return {
        "name": parameter.name,
        "description": parameter.meaning,
        "required": parameter.required,
        "schema": {**parameter.field.schema(), **default},
    }


def _references(kinds: Sequence[type[errors.HybriddError]]) -> list[dict[str, str]]:
    return [{"$ref": f"#/components/errors/{made.kind}"} for made in kinds]


def _error(made: type[errors.HybriddError]) -> dict[str, Any]:
    told = " ".join((made.__doc__ or "").split())
    message, _, data = told.partition(" data: ")
    return {
        "code": made.code,
        "message": message,
        "data": {"kind": made.kind},
        "x-data": data.removesuffix("."),
    }
