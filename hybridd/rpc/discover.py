"""`rpc.discover`: an OpenRPC document, made from the methods' own signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd import __version__
from hybridd.rpc.registry import Method
from hybridd.wire.errors import BY_KIND, HybriddError


def document(methods: Mapping[str, Method]) -> dict[str, Any]:
    """The whole document."""
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "hybridd",
            "version": __version__,
            "description": "One local daemon for every language model on this machine.",
        },
        "methods": [_method(methods[name]) for name in sorted(methods)],
        "components": {
            "errors": {
                kind: _error(made)
                for kind, made in sorted(BY_KIND.items())
                if made is not HybriddError
            }
        },
    }


def _method(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": [
            {"name": p.name, "required": p.required, "schema": p.field.schema()}
            for p in method.parameters.values()
        ],
        "result": {"name": "result", "schema": {"type": "object"}},
    }


def _error(made: type[HybriddError]) -> dict[str, Any]:
    return {"code": made.code, "message": (made.__doc__ or "").strip(), "data": {"kind": made.kind}}
