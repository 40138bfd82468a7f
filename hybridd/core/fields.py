"""Typed values that come from outside: one concept for parameters, options and settings.

A `Field` checks a value (from JSON or TOML), parses a text (from the environment or a flag) and
says what it takes, in words and as JSON Schema. It knows nothing of where the value came from;
callers add the name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class FieldError(ValueError):
    """A value does not suit its field; the text says what the field takes.

    Attributes:
        problem: What is wrong, as a predicate of the value's name.
        path: The inner field at fault ("stop.2"), "" for the value itself.
    """

    def __init__(
        self, takes: str, got: object = None, *, path: str = "", problem: str | None = None
    ) -> None:
        self.takes = takes
        self.got = shown(got)
        self.problem = problem or f"takes {takes}, got {self.got}"
        self.path = short(path)
        super().__init__(takes)

    def __str__(self) -> str:
        return self.problem

    def inside(self, name: str) -> FieldError:
        """The same, seen from the object or list that holds the value under `name`."""
        self.path = short(f"{name}.{self.path}" if self.path else name)
        return self


SHOWN = 80
_LONGEST = 16 * 1024 * 1024  # characters of a text: no limit to speak of


def short(text: str) -> str:
    """A text as a message may show it."""
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def shown(value: object) -> str:
    """A value as a message may show it: short, and never a whole prompt."""
    if isinstance(value, str):
        value = value[:SHOWN]
    elif isinstance(value, (list, dict)) and len(value) > SHOWN:
        # Writing out all of a long one would cost more than it was worth.
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)} elements"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return short(text)


def _json(text: str, takes: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FieldError(takes, text) from None


class Field:
    """Base: anything goes."""

    takes = "any JSON value"

    def check(self, value: Any) -> Any:
        """Return the value as the program uses it.

        Raises:
            FieldError: It is not what the field takes.
        """
        return value

    def parse(self, text: str) -> Any:
        """Check a value written as text (environment, flag)."""
        try:
            value = _json(text, self.takes)
        except FieldError:
            value = text
        return self.check(value)

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the value on the wire."""
        return {}

    def toml(self, value: Any) -> str:
        """The value as `hybridd.toml` writes it."""
        return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Bool(Field):
    """true or false."""

    @property
    def takes(self) -> str:  # type: ignore[override]
        return "true or false"

    def check(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise FieldError(self.takes, value)

    def parse(self, text: str) -> bool:
        word = text.strip().lower()
        if word in ("1", "true", "yes", "on"):
            return True
        if word in ("0", "false", "no", "off"):
            return False
        raise FieldError(self.takes, text)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Int(Field):
    """An integer within bounds; booleans and floats are refused."""

    low: int = -(2**63)
    high: int = 2**63 - 1

    @property
    def takes(self) -> str:  # type: ignore[override]
        if self.low == -(2**63):
            return "an integer"
        if self.high == 2**63 - 1:
            return f"an integer of at least {self.low}"
        return f"an integer from {self.low} to {self.high}"

    def check(self, value: Any) -> int:
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        ):
            return value
        raise FieldError(self.takes, value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Float(Field):
    """A finite number within bounds."""

    low: float = -1e300
    high: float = 1e300

    @property
    def takes(self) -> str:  # type: ignore[override]
        if self.high == 1e300:
            return "a number" if self.low == -1e300 else f"a number of at least {self.low:g}"
        return f"a number from {self.low:g} to {self.high:g}"

    def check(self, value: Any) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number) and self.low <= number <= self.high:
                return number
        raise FieldError(self.takes, value)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Text(Field):
    """A text of proper Unicode; its length in characters is bounded."""

    min_length: int = 0
    max_length: int = _LONGEST

    @property
    def takes(self) -> str:  # type: ignore[override]
        if self.max_length >= _LONGEST:
            return "a text that is not empty" if self.min_length else "a text"
        return f"a text of {self.min_length} to {self.max_length} characters"

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not self.min_length <= len(value) <= self.max_length:
            raise FieldError(self.takes, value)
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise FieldError("a text of valid Unicode (no lone surrogates)", value) from None
        return value

    def parse(self, text: str) -> str:
        return self.check(text)

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        if self.min_length:
            schema["minLength"] = self.min_length
        if self.max_length < _LONGEST:
            schema["maxLength"] = self.max_length
        return schema


@dataclass(frozen=True, slots=True)
class Choice(Field):
    """One of a few values."""

    values: tuple[Any, ...]

    @property
    def takes(self) -> str:  # type: ignore[override]
        return "one of " + ", ".join(json.dumps(v) for v in self.values)

    def check(self, value: Any) -> Any:
        for allowed in self.values:
            if type(value) is type(allowed) and value == allowed:
                return value
        raise FieldError(self.takes, value)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


@dataclass(frozen=True, slots=True)
class OneOf(Field):
    """The first of several fields that takes the value."""

    options: tuple[Field, ...]

    @property
    def takes(self) -> str:  # type: ignore[override]
        return ", or ".join(o.takes for o in self.options)

    def check(self, value: Any) -> Any:
        for option in self.options:
            try:
                return option.check(value)
            except FieldError:
                continue
        raise FieldError(self.takes, value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [o.schema() for o in self.options]}


@dataclass(frozen=True, slots=True)
class ListOf(Field):
    """A list whose elements suit one field."""

    item: Field
    min_length: int = 0
    max_length: int = 200_000
    separator: str = ","  # between the elements of a text
    distinct: str | None = None  # the key that no two elements, which are objects, have in common

    @property
    def takes(self) -> str:  # type: ignore[override]
        what = f"a list of {self.min_length} to {self.max_length} elements"
        what += f" with different values of {self.distinct}" if self.distinct else ""
        return f"{what}, each {self.item.takes}"

    def check(self, value: Any) -> list[Any]:
        if not isinstance(value, list) or not self.min_length <= len(value) <= self.max_length:
            raise FieldError(self.takes, value)
        checked = []
        for index, element in enumerate(value):
            try:
                checked.append(self.item.check(element))
            except FieldError as exc:
                raise exc.inside(str(index)) from None
        if self.distinct is not None and len({one[self.distinct] for one in checked}) < len(
            checked
        ):
            raise FieldError(self.takes, value)
        return checked

    def parse(self, text: str) -> list[Any]:
        if text.lstrip().startswith("["):
            return self.check(_json(text, self.takes))
        return self.check([part for part in text.split(self.separator) if part])

    def schema(self) -> dict[str, Any]:
        bounds = {"minItems": self.min_length, "maxItems": self.max_length}
        return {"type": "array", "items": self.item.schema(), **bounds}


@dataclass(frozen=True, slots=True)
class Struct(Field):
    """An object with known names, each optional unless required; unknown names are refused."""

    fields: Mapping[str, Field]
    required: Sequence[str] = ()
    open: bool = False  # takes unknown names as they are (OpenAI's shapes grow)
    what: str = field(default="an object")
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # for the schemas, by name

    @property
    def takes(self) -> str:  # type: ignore[override]
        return self.what

    def check(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise FieldError(self.takes, value)
        checked: dict[str, Any] = {}
        for name, element in value.items():
            known = self.fields.get(name)
            if known is None:
                if not self.open:
                    problem = f"is {unknown_name(name, self.fields)}"
                    raise FieldError(self.takes, path=name, problem=problem)
                checked[name] = element
                continue
            try:
                checked[name] = known.check(element)
            except FieldError as exc:
                raise exc.inside(name) from None
        for name in self.required:
            if name not in checked:
                takes = self.fields[name].takes
                raise FieldError(takes, path=name, problem=f"is missing; it takes {takes}")
        return checked

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {
                n: {**f.schema(), **self.notes.get(n, {})} for n, f in self.fields.items()
            },
            "required": list(self.required),
            "additionalProperties": self.open,
        }


@dataclass(frozen=True, slots=True)
class MapOf(Field):
    """An object with free names (or whole numbers as names) whose values suit one field."""

    value: Field
    max_length: int = 4096
    whole: bool = False

    @property
    def takes(self) -> str:  # type: ignore[override]
        return f"an object of up to {self.max_length} names, each with {self.value.takes}"

    def check(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > self.max_length:
            raise FieldError(self.takes, value)
        checked = {}
        for name, element in value.items():
            if self.whole and not (name.isascii() and name.isdigit() and len(name) <= 10):
                raise FieldError("token ids (whole numbers) as names", name[:80], path=name[:80])
            try:
                checked[name] = self.value.check(element)
            except FieldError as exc:
                raise exc.inside(name) from None
        return checked

    def schema(self) -> dict[str, Any]:
        names = {"propertyNames": {"pattern": "^[0-9]{1,10}$"}} if self.whole else {}
        return {
            "type": "object",
            "additionalProperties": self.value.schema(),
            "maxProperties": self.max_length,
            **names,
        }


def unknown_name(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """What to say of a name that does not exist, with the nearest one that does."""
    import difflib  # only on the way of an error: it costs more than the rest of this module

    # A text far longer than any known name is not meant for one; comparing it would take seconds.
    near = [] if len(name) > 256 else difflib.get_close_matches(name, list(known), cutoff=0.6)
    if near:
        return f"no such name; did you mean {near[0]!r}?"
    return f"no such name; known are {', '.join(sorted(known))}" if known else "it takes none"
