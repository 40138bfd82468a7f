"""The HTTP gateway's settings: as JSON, as TOML, as texts of the environment and of flags."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from hybridd.core.fields import Field, FieldError
from hybridd.core.keys import KEYS
from hybridd.core.web_fields import HostName, Listed, ListenAddress, ModelMap, Origin

HOSTS = Listed(HostName(), max_length=3)
ORIGINS = Listed(Origin())
MAPPED = {"claude-*": "qwen", "gpt-4o": "a/b:Q4"}


@pytest.mark.parametrize(
    ("field", "value", "made"),
    [
        (ListenAddress(), "", ""),
        (ListenAddress(), "none", ""),
        (ListenAddress(), "Off", ""),
        (ListenAddress(), "127.0.0.1", "127.0.0.1:4114"),
        (ListenAddress(), 8080, "127.0.0.1:8080"),
        (HOSTS, [], []),
        (HOSTS, ["Box.lan"], ["box.lan"]),
        (HOSTS, "box.lan, b:80,", ["box.lan", "b:80"]),
        (HOSTS, "", []),
        (ORIGINS, "http://a:1", ["http://a:1"]),
        (ORIGINS, ["http://a:1/", "app://b"], ["http://a:1", "app://b"]),
        (ModelMap(), {}, {}),
        (ModelMap(), MAPPED, MAPPED),
        (ModelMap(), "claude-* = qwen , gpt-4o=a/b:Q4", MAPPED),
        (ModelMap(), "", {}),
        (ModelMap(), "a=b=c", {"a": "b=c"}),
    ],
)
def test_what_a_field_takes(field: Field, value: Any, made: Any) -> None:
    assert field.check(value) == made
    assert field.check(made) == made, "what was kept is read again"
    json.dumps(field.schema())
    if isinstance(value, str):
        assert field.parse(value) == made
    assert tomllib.loads(f"x = {field.toml(made)}") == {"x": made}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (ListenAddress(), "box.lan:4114", "http.allow_hosts"),
        (ListenAddress(), True, "takes an address"),
        (ListenAddress(), 70_000, "takes an address"),
        (ListenAddress(), None, "takes an address"),
        (HOSTS, ["a", "b", "c", "d"], "takes a list"),
        (HOSTS, ["a", "*"], "wildcards"),
        (HOSTS, "a,http://b", "without http://"),
        (HOSTS, [7], "takes a host"),
        (HOSTS, {"a": "b"}, "takes a list"),
        (ORIGINS, ["null"], "sandboxed"),
        (ORIGINS, "*", "wildcards"),
        (ORIGINS, 7, "takes a list"),
        (ModelMap(), "claude", "takes models by patterns"),
        (ModelMap(), "a=b,a=c", "takes models by patterns"),
        (ModelMap(), "=b", "takes models by patterns"),
        (ModelMap(), "a=", "takes models by patterns"),
        (ModelMap(), {"a": 7}, "takes models by patterns"),
        (ModelMap(), {"": "b"}, "takes models by patterns"),
        (ModelMap(), ["a"], "takes models by patterns"),
        (ModelMap(), dict.fromkeys(map(str, range(300)), "a"), "takes models by patterns"),
    ],
)
def test_what_a_field_refuses(field: Field, value: Any, says: str) -> None:
    with pytest.raises(FieldError) as caught:
        field.check(value)
    assert says in str(caught.value)
    if isinstance(value, str):
        with pytest.raises(FieldError):
            field.parse(value)


@pytest.mark.parametrize("text", ['{"a": "b"}', ' {"a":"b"} ', "a=b"])
def test_a_map_as_a_text(text: str) -> None:
    assert KEYS["http.model_map"].field.parse(text) == {"a": "b"}


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "{" * 100_000, "[]", '["a"]'])
def test_a_text_that_is_no_map(text: str) -> None:
    with pytest.raises(FieldError, match="takes models by patterns"):
        KEYS["http.model_map"].field.parse(text)
