"""From one parsed request to one response, through jsonrpcserver's parts.

The only importer of jsonrpcserver, and the only place that turns exceptions into wire errors. Its
`async_dispatch` runs on asyncio, so its inner functions are called one by one: they run under trio.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.dispatcher import create_request, to_response
from jsonrpcserver.main import default_validator
from jsonrpcserver.response import to_serializable_one
from jsonrpcserver.result import Error, Success

from hybridd.core.fields import short, unknown_name
from hybridd.rpc.call import Call
from hybridd.rpc.registry import Method
from hybridd.wire.errors import HybriddError, InternalError, InvalidRequest, MethodNotFound

log = logging.getLogger(__name__)


class Dispatcher:
    """Runs requests against a table of methods."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._wrapped = {name: _wrap(method) for name, method in methods.items()}

    def validate(self, request: Any) -> None:
        """Check the envelope by JSON-RPC's schema.

        Raises:
            InvalidRequest: It is no JSON-RPC 2.0 request.
        """
        if not isinstance(request, dict):
            raise InvalidRequest("a JSON-RPC request is an object")
        try:
            # The schema looks at the shape of params only; their content is for the method.
            shallow = {k: v for k, v in request.items() if k != "params"}
            if "params" in request:
                shallow["params"] = {} if isinstance(request["params"], dict) else request["params"]
                if isinstance(shallow["params"], list):
                    shallow["params"] = []
            default_validator(shallow)
        except Exception:  # jsonschema's errors have no common base that jsonrpcserver names
            raise InvalidRequest(
                'no JSON-RPC 2.0 request: it takes jsonrpc "2.0", a method and params (an object)'
            ) from None

    async def run(self, request: Mapping[str, Any], call: Call) -> dict[str, Any]:
        """Run a validated request; the response is an object ready to be encoded."""
        name = request["method"]
        if name not in self._methods:
            hint = unknown_name(name, self._methods)
            hint = hint if "did you mean" in hint else "rpc.discover lists those there are"
            name = short(name)
            error = MethodNotFound(f"there is no method {name!r}: {hint}", method=name)
            return {"jsonrpc": "2.0", "id": request["id"], "error": error.to_wire()}
        made = create_request({**request, "params": {"params": request.get("params")}})
        made, result = await dispatch_request(self._wrapped, call, made)
        return cast("dict[str, Any]", to_serializable_one(to_response(made, result)))


def _wrap(method: Method) -> Any:
    """A method as jsonrpcserver calls it: exceptions become results, with nothing inner told."""

    async def run(call: Call, /, params: Any) -> Any:
        try:
            return Success(await method.handler(call, **method.check(params)))
        except HybriddError as exc:
            error = exc.to_wire()
        except Exception:
            log.exception("%s failed", method.name)
            error = InternalError(
                f"{method.name} failed inside hybridd; the daemon's log has the details"
            ).to_wire()
        return Error(error["code"], error["message"], error["data"])

    return run
