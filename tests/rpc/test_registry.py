"""Methods by name: one signature checks requests and writes the OpenRPC document."""

from __future__ import annotations

import json
from typing import Annotated, Any

import jsonschema
import pytest

import hybridd.rpc.methods
from hybridd.core.fields import Int, Struct, Text
from hybridd.rpc.call import Call
from hybridd.rpc.discover import document
from hybridd.rpc.registry import REGISTRY, Registry
from hybridd.wire.errors import BY_KIND, Busy, InvalidParams
from hybridd.wire.types import Usage

assert hybridd.rpc.methods
OWN = Registry()
METHODS = set(
    """
    system.ping system.info system.shutdown system.reload rpc.discover
    models.configure models.list models.show models.resolve models.rescan
    models.load models.unload models.loaded
    jobs.list jobs.get jobs.cancel jobs.wait
    generate chat embed rerank tokenize detokenize apply_template
    events.subscribe events.unsubscribe config.get config.set config.unset
    http.status http.token http.link
    """.split()  # noqa: SIM905  a list of 29 texts is a page
)


@OWN.method("thing.do", result=Usage, errors=(Busy,))
async def do(
    call: Call,
    *,
    model: Annotated[str, Text(1)],
    count: Annotated[int, Int(1, 5), "How often."] = 1,
    limit: Annotated[int | None, Int(1)] = None,
    options: Annotated[dict[str, Any] | None, Struct({"top_k": Int(0)})] = None,
) -> dict[str, Any]:
    """Do a thing
    on two lines.

    More that is not in the summary.
    """
    return {}


def refused(params: Any) -> InvalidParams:
    with pytest.raises(InvalidParams) as caught:
        OWN.methods["thing.do"].check(params)
    assert caught.value.message.startswith("thing.do")
    assert caught.value.data["reason"]
    return caught.value


def test_good_params() -> None:
    check = OWN.methods["thing.do"].check
    assert check({"model": "m"}) == {"model": "m"}
    assert check({"model": "m", "limit": None, "options": None}) == {"model": "m"}
    assert check({"model": "m", "count": 5, "options": {"top_k": 1}}) == {
        "model": "m", "count": 5, "options": {"top_k": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "field", "text"),
    [
        ({}, "model", "model is missing; it takes a text that is not empty"),
        (None, "model", "model is missing"),
        ({"model": ""}, "model", "takes a text that is not empty, got \"\""),
        ({"model": None}, "model", "got null"),
        ({"model": "m", "count": None}, "count", "got null"),
        ({"model": "m", "count": True}, "count", "takes an integer from 1 to 5, got true"),
        ({"model": "m", "cuont": 1}, "cuont", "no such name; did you mean 'count'?"),
        ({"model": "m", "limit": 0}, "limit", "takes an integer of at least 1, got 0"),
        ({"model": "m", "options": {"top_k": -1}}, "options.top_k", "options.top_k takes an int"),
        ({"model": "m", "options": {"topk": 1}}, "options.topk", "did you mean 'top_k'?"),
        (["m"], "params", "takes named parameters (an object), got [\"m\"]"),
        ([], "params", "named parameters"),
    ],
)  # fmt: skip
def test_bad_params(params: Any, field: str, text: str) -> None:
    error = refused(params)
    assert error.data["field"] == field
    assert text in error.message


def test_a_megabyte_in_a_name_or_value_is_not_repeated() -> None:
    big = "x" * 10**6
    for params in (
        {"model": "m", big: 1}, {"model": "m", "options": {big: 1}}, [big], {"model": [big]},
        {"model": {big: big}}, {"model": "m", "count": big},
    ):  # fmt: skip
        assert len(json.dumps(refused(params).to_wire())) < 1000


def test_every_method_of_this_version_is_there() -> None:
    assert set(REGISTRY.methods) == METHODS
    assert all(method.summary for method in REGISTRY.methods.values())


def test_the_document_says_what_the_checks_do() -> None:
    made = document(OWN.methods)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    (method,) = made["methods"]
    assert method["name"] == "thing.do"
    assert method["summary"] == "Do a thing on two lines."
    assert method["description"] == "More that is not in the summary."
    assert method["errors"] == [{"$ref": "#/components/errors/busy"}]
    assert method["result"]["schema"] == {"$ref": "#/components/schemas/Usage"}
    assert made["components"]["schemas"]["Usage"]["properties"]["cached_tokens"] == {
        "type": "integer",
        "description": "Of the prompt, those that did not have to be computed.",
    }
    by_name = {p["name"]: p for p in method["params"]}
    assert [name for name, p in by_name.items() if p["required"]] == ["model"]
    assert by_name["count"]["schema"] == {
        "type": "integer", "minimum": 1, "maximum": 5, "default": 1,
    }  # fmt: skip
    assert by_name["count"]["description"] == "How often."
    assert method["paramStructure"] == "by-name"


def test_the_daemons_own_document() -> None:
    made = document(REGISTRY.methods)
    json.dumps(made, allow_nan=False)
    assert [m["name"] for m in made["methods"]] == sorted(METHODS)
    for method in made["methods"]:
        for parameter in method["params"]:
            jsonschema.Draft202012Validator.check_schema(parameter["schema"])
    assert set(made["components"]["errors"]) == set(BY_KIND)
