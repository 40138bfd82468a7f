"""Fields of the HTTP gateway's settings, whose values `web_names` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hybridd.core.fields import Field, FieldError, ListOf, Text, shown
from hybridd.core.web_names import parse_address, parse_host, parse_origin

_OFF = frozenset({"", "none", "off"})
_MODEL = Text(1, 1024)


def _read(takes: str, value: object, parse: Callable[[str], str]) -> str:
    if not isinstance(value, str):
        raise FieldError(takes, value)
    try:
        return parse(value)
    except ValueError as exc:
        problem = f"takes {takes}, got {shown(value)}: {exc}"
        raise FieldError(takes, value, problem=problem) from None


@dataclass(frozen=True, slots=True)
class ListenAddress(Field):
    """An address to listen on, with its port; "" is none."""

    @property
    def takes(self) -> str:  # type: ignore[override]
        return (
            'an address of this machine such as "127.0.0.1:4114", "localhost:4114" or "[::1]:4114"'
            ', or "" for none'
        )

    def check(self, value: Any) -> str:
        if isinstance(value, str) and value.strip().lower() in _OFF:
            return ""
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
            value = str(value)  # a port alone, which JSON and TOML have as a number
        return _read(self.takes, value, lambda text: str(parse_address(text)))

    def parse(self, text: str) -> str:
        return self.check(text)

    def schema(self) -> dict[str, Any]:
        return {"type": ["string", "integer"]}


@dataclass(frozen=True, slots=True)
class HostName(Field):
    """A name of this machine, as a `Host` header has it."""

    @property
    def takes(self) -> str:  # type: ignore[override]
        return 'a host such as "box.lan" or "box.lan:8080"'

    def check(self, value: Any) -> str:
        return _read(self.takes, value, parse_host)

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True, slots=True)
class Origin(Field):
    """The origin of pages, as an `Origin` header has it."""

    @property
    def takes(self) -> str:  # type: ignore[override]
        return 'an origin such as "http://localhost:3000"'

    def check(self, value: Any) -> str:
        return _read(self.takes, value, parse_origin)

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True, slots=True)
class Listed(ListOf):
    """A list that may also be written as one text, so that `config set KEY VALUE` takes one."""

    def check(self, value: Any) -> list[Any]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(self.separator) if part.strip()]
        return ListOf.check(self, value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [ListOf.schema(self), {"type": "string"}]}


@dataclass(frozen=True, slots=True)
class ModelMap(Field):
    """Models by patterns of names: an object, or `PATTERN=MODEL` with commas between."""

    max_length: int = 256

    @property
    def takes(self) -> str:  # type: ignore[override]
        return (
            'models by patterns of names, such as {"claude-*": "qwen"}, or as a text '
            '"claude-*=qwen,gpt-*=qwen"'
        )

    def check(self, value: Any) -> dict[str, str]:
        if isinstance(value, str):
            value = self._pairs(value)
        if not isinstance(value, dict) or len(value) > self.max_length:
            raise FieldError(self.takes, value)
        for pattern, model in value.items():
            try:
                _MODEL.check(pattern)
                _MODEL.check(model)
            except FieldError:
                raise FieldError(self.takes, value, path=pattern) from None
        return dict(value)

    def parse(self, text: str) -> dict[str, str]:
        if text.lstrip().startswith("{"):
            try:
                return self.check(json.loads(text))
            except (ValueError, RecursionError):
                raise FieldError(self.takes, text) from None
        return self.check(text)

    def schema(self) -> dict[str, Any]:
        written = {"type": "object", "additionalProperties": {"type": "string"}}
        return {"anyOf": [written, {"type": "string"}]}

    def toml(self, value: Any) -> str:
        pairs = (f"{json.dumps(name)} = {json.dumps(model)}" for name, model in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"

    def _pairs(self, text: str) -> dict[str, str]:
        found = {}
        for pair in filter(None, (part.strip() for part in text.split(","))):
            pattern, sign, model = (part.strip() for part in pair.partition("="))
            if not sign or pattern in found:
                raise FieldError(self.takes, text)
            found[pattern] = model
        return found
