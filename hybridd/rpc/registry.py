"""Methods by name, each with the table of its parameters, made from its own signature.

A method is an async function `(call, *, name: Annotated[type, Field] = default, ...)`. The one
signature serves the check of requests and `rpc.discover`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hybridd.core.fields import Field, FieldError, short, shown, unknown_name
from hybridd.wire.errors import InvalidParams

Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method."""

    name: str
    field: Field
    required: bool
    nullable: bool


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its handler and what it takes."""

    name: str
    handler: Handler
    summary: str
    parameters: Mapping[str, Parameter]

    def check(self, params: Any) -> dict[str, Any]:
        """Check a request's params; absent ones are left to the handler's defaults.

        Raises:
            InvalidParams: With the field and the reason.
        """
        if params is None:
            params = {}
        if not isinstance(params, dict):
            raise InvalidParams(
                f"{self.name} takes named parameters (an object), got {shown(params)}",
                field="params",
                reason="not an object",
            )
        made: dict[str, Any] = {}
        for name, value in params.items():
            known = self.parameters.get(name)
            if known is None:
                reason = unknown_name(name, self.parameters)
                field = short(name)
                raise InvalidParams(f"{self.name}: {field}: {reason}", field=field, reason=reason)
            if value is None and known.nullable:
                continue
            try:
                made[name] = known.field.check(value)
            except FieldError as exc:
                field = exc.inside(name).path
                raise InvalidParams(
                    f"{self.name}: {field} {exc}", field=field, reason=str(exc)
                ) from None
        for name, known in self.parameters.items():
            if known.required and name not in made:
                reason = f"is missing; it takes {known.field.takes}"
                raise InvalidParams(f"{self.name}: {name} {reason}", field=name, reason=reason)
        return made


class Registry:
    """Collects methods by decoration."""

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}

    def method(self, name: str) -> Callable[[Handler], Handler]:
        """Register the decorated function under a wire name."""

        def register(handler: Handler) -> Handler:
            hints = get_type_hints(handler, include_extras=True)
            parameters = {}
            for parameter in inspect.signature(handler).parameters.values():
                if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                    continue
                hint = hints[parameter.name]
                assert get_origin(hint) is Annotated, f"{name}: {parameter.name} has no Field"
                field = next(a for a in get_args(hint) if isinstance(a, Field))
                required = parameter.default is inspect.Parameter.empty
                parameters[parameter.name] = Parameter(
                    parameter.name, field, required, parameter.default is None
                )
            summary = (inspect.getdoc(handler) or "").split("\n\n")[0].replace("\n", " ")
            self.methods[name] = Method(name, handler, summary, parameters)
            return handler

        return register


REGISTRY = Registry()
method = REGISTRY.method
