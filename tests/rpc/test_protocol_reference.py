"""docs/protocol.md, `rpc.discover` and the code say the same."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from hybridd.rpc.discover import document
from hybridd.rpc.registry import REGISTRY
from hybridd.wire.errors import BY_KIND, InvalidParams

from .contract import Contract, contract
from .protocol_reference import BLOCK, FILE, made

TEXT = FILE.read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^```json\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
DOCUMENT = document(REGISTRY.methods)
# As far as OpenRPC's own schema is used here.
OPENRPC = {
    "type": "object",
    "required": ["openrpc", "info", "methods", "components"],
    "properties": {
        "openrpc": {"type": "string", "pattern": r"^1\.\d+\.\d+$"},
        "info": {"type": "object", "required": ["title", "version"]},
        "methods": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/method"}},
        "components": {
            "type": "object",
            "required": ["schemas", "errors"],
            "properties": {
                "schemas": {"additionalProperties": {"$ref": "#/$defs/schema"}},
                "errors": {"additionalProperties": {"$ref": "#/$defs/error"}},
            },
        },
    },
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
    "$defs": {
        "schema": {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        "reference": {"type": "object", "required": ["$ref"], "maxProperties": 1},
        "sentence": {"type": "string", "pattern": r"[.!]$"},
        "method": {
            "type": "object",
            "required": ["name", "summary", "params", "paramStructure", "result", "errors"],
            "properties": {
                "name": {"type": "string"},
                "summary": {"$ref": "#/$defs/sentence"},
                "description": {"type": "string"},
                "paramStructure": {"const": "by-name"},
                "params": {"type": "array", "items": {"$ref": "#/$defs/parameter"}},
                "result": {
                    "type": "object",
                    "required": ["name", "schema"],
                    "properties": {
                        "schema": {"anyOf": [{"required": ["$ref"]}, {"required": ["anyOf"]}]}
                    },
                },
                "errors": {"type": "array", "items": {"$ref": "#/$defs/reference"}},
            },
            "additionalProperties": False,
        },
        "parameter": {
            "type": "object",
            "required": ["name", "description", "required", "schema"],
            "properties": {
                "description": {"$ref": "#/$defs/sentence"},
                "required": {"type": "boolean"},
                "schema": {"$ref": "#/$defs/schema"},
            },
        },
        "error": {
            "type": "object",
            "required": ["code", "message", "data"],
            "properties": {"code": {"type": "integer"}, "message": {"$ref": "#/$defs/sentence"}},
        },
    },
}


def examples() -> dict[str, list[list[Any]]]:
    """The parsed lines of every example, by the heading above it."""
    found: dict[str, list[list[Any]]] = {}
    for match in EXAMPLE.finditer(TEXT):
        heading = HEADING.findall(TEXT, 0, match.start())[-1].strip("`")
        lines = [json.loads(line) for line in match[1].splitlines()]
        found.setdefault(heading, []).append(lines)
    return found


EXAMPLES = examples()


def test_the_tables_are_those_of_the_code() -> None:
    assert made().rewrite(TEXT) == TEXT, "run: python -m tests.rpc.protocol_reference"


def test_every_method_error_notification_and_record_has_its_place() -> None:
    names = [match[1] for match in BLOCK.finditer(TEXT)]
    assert sorted(names) == sorted(made().blocks)
    titles = {title.strip("`") for title in HEADING.findall(TEXT)}
    assert titles >= set(REGISTRY.methods) | {n["name"] for n in DOCUMENT["x-notifications"]}


def test_links_inside_the_file_lead_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in HEADING.findall(TEXT)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= anchors


def test_the_table_of_errors_has_every_kind_with_its_code() -> None:
    rows = re.findall(r"^\| (-\d+) \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert {kind: int(code) for code, kind in rows} == {k: m.code for k, m in BY_KIND.items()}


@pytest.mark.parametrize("name", sorted(REGISTRY.methods))
def test_every_method_has_an_exchange(name: str) -> None:
    lines = [line for example in EXAMPLES[name] for line in example]
    assert [line for line in lines if line.get("method") == name]
    assert [line for line in lines if "result" in line]


@pytest.mark.parametrize("heading", sorted(EXAMPLES))
def test_examples_are_what_the_code_takes_and_sends(heading: str) -> None:
    for lines in EXAMPLES[heading]:
        asked: dict[Any, str] = {}
        for line in lines:
            for message in line if isinstance(line, list) else [line]:
                check_message(message, asked, contract())


def check_message(message: Any, asked: dict[Any, str], told: Contract) -> None:
    assert message["jsonrpc"] == "2.0"
    if "method" not in message:
        told.check_reply(asked[message["id"]], message)
    elif "id" in message:
        asked[message["id"]] = message["method"]
        check, params = REGISTRY.methods[message["method"]].check, message.get("params", {})
        if "optoins" in params:  # the example of a typo
            with pytest.raises(InvalidParams):
                check(params)
        else:
            check(params)
    else:
        told.check_notification(message)


def test_the_document_is_an_openrpc_document() -> None:
    jsonschema.Draft202012Validator.check_schema(OPENRPC)
    jsonschema.Draft202012Validator(OPENRPC).validate(DOCUMENT)


def test_references_of_the_document_lead_somewhere() -> None:
    for kind, name in set(re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(DOCUMENT))):
        assert name in DOCUMENT["components"][kind]


def test_every_field_of_a_record_has_a_meaning() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, told in schema["properties"].items():
            assert told["description"].endswith((".", "…")), f"{name}.{field}"
