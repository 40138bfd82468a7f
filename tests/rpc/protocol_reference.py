"""Makes the tables of docs/protocol.md from `rpc.discover`'s document.

Each stands between two comments, `<!-- NAME -->` and `<!-- end -->`, and is replaced:

    python -m tests.rpc.protocol_reference

The rest of the file is written by hand; `test_protocol_reference` holds all of it against the code.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import hybridd.rpc.methods
from hybridd.rpc.discover import document
from hybridd.rpc.registry import REGISTRY

assert hybridd.rpc.methods
FILE = Path(__file__).parents[2] / "docs" / "protocol.md"
BLOCK = re.compile(r"<!-- (\S+) -->\n.*?<!-- end -->\n", re.DOTALL)
_TABLES = {"options": "#options", "load_options": "#load-options"}


class Reference:
    """The generated parts, by the names of their blocks."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.schemas: Mapping[str, Any] = document["components"]["schemas"]
        text = json.dumps(document)
        used = Counter(re.findall(r'"#/components/schemas/(\w+)"', text))
        methods, notifications = document["methods"], document["x-notifications"]
        results = [_records(m["result"]["schema"]) for m in methods]
        # A record that only one method returns is told there, and an empty one by a word.
        alone = {name for names in results if len(names) == 1 for name in names if used[name] == 1}
        empty = {name for name, schema in self.schemas.items() if not schema["properties"]}
        sent = {name for n in notifications for name in _records(n["params"])}
        self.inline = alone | empty | sent
        self.blocks: dict[str, Callable[[], str]] = {
            "errors": self._errors,
            "errors-everywhere": lambda: _kinds(document["x-errors"]) + "\n",
            "events": self._events,
            "options": partial(self._options, "generate", "options"),
            "load-options": partial(self._options, "models.load", "load_options"),
            **{m["name"]: partial(self._method, m) for m in methods},
            **{n["name"]: partial(self._notification, n) for n in notifications},
            **{name: partial(self._record, name) for name in set(self.schemas) - self.inline},
        }

    def rewrite(self, text: str) -> str:
        """The file's text with every block made anew."""

        def made(found: re.Match[str]) -> str:
            return f"<!-- {found[1]} -->\n\n{self.blocks[found[1]]()}\n<!-- end -->\n"

        return BLOCK.sub(made, text)

    # ---------------------------------------------------------------- blocks

    def _method(self, method: Mapping[str, Any]) -> str:
        parts = [method["summary"], method["description"]]
        if method["params"]:
            rows = chain.from_iterable(self._parameter(p) for p in method["params"])
            parts.append(_table(("parameter", "type", "default", "meaning"), rows))
        else:
            parts.append("No parameters.")
        parts.append(self._result(method["result"]["schema"]))
        if method["errors"]:
            parts.append(f"Errors: {_kinds(method['errors'])}")
        return "\n\n".join(part.strip() for part in parts if part) + "\n"

    def _parameter(self, parameter: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
        name, schema = parameter["name"], parameter["schema"]
        kind = f"[object]({_TABLES[name]})" if name in _TABLES else self._type(schema)
        default = "required" if parameter["required"] else _value(schema.get("default"))
        yield f"`{name}`", kind, default, parameter["description"]
        if name not in _TABLES:
            yield from self._inner(f"{name}.", schema)

    def _result(self, schema: Mapping[str, Any]) -> str:
        names = _records(schema)
        if len(names) == 1 and names[0] in self.inline:
            if not self.schemas[names[0]]["properties"]:
                return "Result: an empty object."
            return f"Result:\n\n{self._fields(names[0])}"
        return f"Result: {self._type(schema)}."

    def _notification(self, notification: Mapping[str, Any]) -> str:
        (name,) = _records(notification["params"])
        sender = f"Sent by the {notification['sender']}."
        return f"{notification['summary']} {sender}\n\n{self._fields(name)}\n"

    def _record(self, name: str) -> str:
        return f"{self.schemas[name]['description']}\n\n{self._fields(name)}\n"

    def _fields(self, name: str) -> str:
        fields = self.schemas[name]["properties"].items()
        rows = ((f"`{name}`", self._type(f), f["description"]) for name, f in fields)
        return _table(("field", "type", "meaning"), rows)

    def _options(self, method: str, parameter: str) -> str:
        (found,) = (m for m in self.document["methods"] if m["name"] == method)
        (schema,) = (p["schema"] for p in found["params"] if p["name"] == parameter)
        rows = self._inner("", schema)
        return _table(("option", "type", "default", "meaning"), rows) + "\n"

    def _inner(self, before: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
        """The fields of an object, or of the objects in a list."""
        schema = schema.get("items", schema)
        for name, field in schema.get("properties", {}).items():
            required = name in schema["required"]
            default = "required" if required else _value(field.get("default"))
            yield f"`{before}{name}`", self._type(field), default, field["description"]
            yield from self._inner(f"{before}{name}.", field)

    def _errors(self) -> str:
        kinds = self.document["components"]["errors"].values()
        order = sorted(kinds, key=lambda e: (e["code"] < -32100, -e["code"] % 32000))
        rows = (
            (str(e["code"]), f"`{e['data']['kind']}`", e["message"], e["x-data"]) for e in order
        )
        return _table(("code", "kind", "what happened", "data"), rows) + "\n"

    def _events(self) -> str:
        rows = (
            (e["topic"], f"`{e['type']}`", e["meaning"], ", ".join(f"`{f}`" for f in e["fields"]))
            for e in self.document["x-events"]
        )
        return _table(("topic", "type", "what happened", "fields"), rows) + "\n"

    # ---------------------------------------------------------------- parts

    def _type(self, schema: Mapping[str, Any]) -> str:
        if "$ref" in schema:
            name = _last(schema["$ref"])
            return f"[{name}](#{name.lower()})"
        if "enum" in schema:
            return ", ".join(_value(v) or "null" for v in schema["enum"])
        if "anyOf" in schema:
            return " or ".join(self._type(part) for part in schema["anyOf"])
        kind = schema.get("type", "any")
        if kind == "array":
            return f"list of {self._type(schema['items'])}"
        if kind == "object" and (inner := schema.get("additionalProperties")) not in (None, False):
            of = self._type(inner) if isinstance(inner, dict) else "any"
            return "object" if of == "any" else f"object of {of}"
        if isinstance(kind, list):
            return " or ".join(kind)
        low, high = schema.get("minimum"), schema.get("maximum")
        return kind + _bounds(low, high)


def _bounds(low: float | None, high: float | None) -> str:
    """The bounds as far as they say something."""
    small = None if low is None or low <= -(2**63) else low
    large = None if high is None or high >= 2**31 - 1 else high
    if small is None:
        return ""
    return f" ≥ {small}" if large is None else f" {small} to {large}"


def _value(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def _kinds(references: Iterable[Mapping[str, str]]) -> str:
    return ", ".join(f"`{_last(r['$ref'])}`" for r in references) + "."


def _records(schema: Mapping[str, Any]) -> list[str]:
    parts = schema.get("anyOf", [schema])
    return [_last(part["$ref"]) for part in parts if "$ref" in part]


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in lines
    )


def made() -> Reference:
    """The reference of this tree."""
    return Reference(document(REGISTRY.methods))


if __name__ == "__main__":
    FILE.write_text(made().rewrite(FILE.read_text(encoding="utf-8")), encoding="utf-8")
