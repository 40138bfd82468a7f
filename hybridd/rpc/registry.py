"""Methods by name, each with the table of its parameters, made from its own signature.

A method is an async function `(call, *, name: Annotated[type, Field, "meaning"] = default, ...)`.
The one signature serves the check of requests and `rpc.discover`, which takes the meaning of a
result's fields from its record.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hybridd.core.fields import Field, FieldError, short, shown, unknown_name
from hybridd.wire.errors import HybriddError, InvalidParams

Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        default: None also where there is none that JSON could say.
    """

    name: str
    field: Field
    meaning: str
    required: bool
    nullable: bool
    default: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its handler, what it takes and what comes of it.

    Attributes:
        summary, description: The first paragraph of the handler's docstring, and the others.
        result: The record of its result, or several of them (`A | B`); None where nothing is said.
        errors: Those of its own, beside what every request can meet.
    """

    name: str
    handler: Handler
    summary: str
    description: str
    parameters: Mapping[str, Parameter]
    result: Any
    errors: Sequence[type[HybriddError]]

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

    def method(
        self, name: str, *, result: Any = None, errors: Sequence[type[HybriddError]] = ()
    ) -> Callable[[Handler], Handler]:
        """Register the decorated function under a wire name; see `Method`."""

        def register(handler: Handler) -> Handler:
            hints = get_type_hints(handler, include_extras=True)
            parameters = {
                parameter.name: _parameter(parameter, hints[parameter.name])
                for parameter in inspect.signature(handler).parameters.values()
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY
            }
            summary, _, description = (inspect.getdoc(handler) or "").partition("\n\n")
            summary = " ".join(summary.split())
            self.methods[name] = Method(
                name, handler, summary, description, parameters, result, tuple(errors)
            )
            return handler

        return register


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    assert get_origin(hint) is Annotated, f"{parameter.name} has no Field"
    told, default = get_args(hint)[1:], parameter.default
    return Parameter(
        parameter.name,
        field=next(a for a in told if isinstance(a, Field)),
        meaning=next((a for a in told if isinstance(a, str)), ""),
        required=default is inspect.Parameter.empty,
        nullable=default is None,
        default=default if isinstance(default, (bool, int, float, str)) else None,
    )


REGISTRY = Registry()
method = REGISTRY.method
