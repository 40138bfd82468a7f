"""Names and numbers of protocol version 1, and the JSON-RPC envelopes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0

STREAM = "$/stream"
PROGRESS = "$/progress"
EVENT = "$/event"
EVENTS_LOST = "$/eventsLost"
CANCEL_REQUEST = "$/cancelRequest"

MAX_ID_CHARACTERS = 128
MAX_ID_INTEGER = 2**53
MAX_BATCH = 64
MAX_IN_FLIGHT = 256

HTTP_PORT = 4114  # the gateway's, where an address names none

TOPICS = ("models", "jobs", "memory", "requests", "config")


def request(id: int | str, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def notification(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A JSON-RPC notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def response(id: int | str | None, result: Any) -> dict[str, Any]:
    """A JSON-RPC response."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error_response(id: int | str | None, error: dict[str, Any]) -> dict[str, Any]:
    """A JSON-RPC error response; `error` as `HybriddError.to_wire` makes it."""
    return {"jsonrpc": "2.0", "id": id, "error": error}
