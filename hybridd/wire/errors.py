"""The one tree of errors, the same on the daemon's side and on the client's.

Programs test `kind`; people read `message`, which says what happened, to which model, and what
to do. `data` carries the facts of the kind, which each class names behind "data:". Nothing here
knows how an error travels; `rpc/dispatch` is the only place that turns exceptions into wire errors.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class HybriddError(Exception):
    """Base of every error that may cross the socket.

    Attributes:
        kind: The stable name that programs test.
        code: The JSON-RPC error code of that kind.
        message: A plain sentence for people.
        data: JSON-serialisable facts; `kind` is added on the wire.
    """

    kind = "internal_error"
    code = -32603

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = data

    def to_wire(self) -> dict[str, Any]:
        """The JSON-RPC error object."""
        return {
            "code": self.code,
            "message": self.message,
            "data": {"kind": self.kind, **{k: v for k, v in self.data.items() if v is not None}},
        }


class InternalError(HybriddError):
    """A bug of hybridd or a failure of the engine; the daemon's log has the details.

    data: reason.
    """


class ParseError(HybriddError):
    """The line is no strict JSON."""

    kind, code = "parse_error", -32700


class InvalidRequest(HybriddError):
    """JSON, but no JSON-RPC 2.0 request, or one that may not stand in a batch."""

    kind, code = "invalid_request", -32600


class LineTooLong(InvalidRequest):
    """A line over the limit of bytes or of JSON values. data: limit_bytes or limit_values."""

    kind = "line_too_long"


class MethodNotFound(HybriddError):
    """There is no such method. data: method."""

    kind, code = "method_not_found", -32601


class InvalidParams(HybriddError):
    """A parameter is missing, unknown, of the wrong type or out of range.

    data: field, reason, problems (all of them, of settings).
    """

    kind, code = "invalid_params", -32602


class ModelNotFound(HybriddError):
    """No model answers to this name. data: model, suggestions."""

    kind, code = "model_not_found", -32001


class ModelAmbiguous(HybriddError):
    """Several models answer to this name. data: candidates."""

    kind, code = "model_ambiguous", -32002


class DoesNotFit(HybriddError):
    """There is no room for the model, and making some would not help. data: plan (a Plan)."""

    kind, code = "does_not_fit", -32003


class LoadFailed(HybriddError):
    """The engine could not load the model.

    data: reason, detail (last lines of the engine's log), adapter, draft_model, module (that is
    missing).
    """

    kind, code = "load_failed", -32004


class WorkerDied(HybriddError):
    """The model's process ended; other models go on.

    data: model, signal or exit_code, oom (whether memory ran out).
    """

    kind, code = "worker_died", -32005


class Busy(HybriddError):
    """Too much waits already. data: queue_length, retry_after_s."""

    kind, code = "busy", -32006


class ShuttingDown(HybriddError):
    """The daemon is ending."""

    kind, code = "shutting_down", -32007


class Unsupported(HybriddError):
    """The model, its engine or this daemon cannot do it. data: capability, format, reason."""

    kind, code = "unsupported", -32008


class ContextExceeded(HybriddError):
    """The prompt leaves no room in the context.

    data: prompt_tokens, context_length, index (of the text).
    """

    kind, code = "context_exceeded", -32009


class NotLoaded(HybriddError):
    """The model is not loaded, and models.smart_switching is off. data: model."""

    kind, code = "not_loaded", -32010


class ModelInvalid(HybriddError):
    """The files are no usable model. data: model, reason, adapter."""

    kind, code = "model_invalid", -32011


class RequestTimeout(HybriddError):
    """The request was not done within its `timeout`. data: seconds."""

    kind, code = "timeout", -32012


class SlowConsumer(HybriddError):
    """The client did not read what it asked for."""

    kind, code = "slow_consumer", -32013


class Quarantined(HybriddError):
    """The model's process died too often; it is left alone for a while.

    data: reason, retry_after_s.
    """

    kind, code = "quarantined", -32014


class Cancelled(HybriddError):
    """The request was cancelled, or the model was unloaded under it."""

    kind, code = "cancelled", -32800


def _tree(root: type[HybriddError]) -> dict[str, type[HybriddError]]:
    found = {root.kind: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


BY_KIND = _tree(HybriddError)


def from_wire(error: Any) -> HybriddError:
    """Rebuild the typed error from a JSON-RPC error object; unknown kinds stay `HybriddError`."""
    if not isinstance(error, dict):
        return InternalError("the daemon sent an error that is no object")
    data = error.get("data")
    data = dict(data) if isinstance(data, dict) else {}
    kind = data.pop("kind", "")
    kind = kind if isinstance(kind, str) else ""
    made = BY_KIND.get(kind, HybriddError)(str(error.get("message", "unknown error")))
    made.data = data
    if made.kind != kind and kind:
        made.kind = kind
    code = error.get("code")
    if isinstance(code, int):
        made.code = code
    return made
