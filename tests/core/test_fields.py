"""Typed values from outside: each refusal says what the field takes."""

from __future__ import annotations

import json
import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.fields import (
    Bool,
    Choice,
    Field,
    FieldError,
    Float,
    Int,
    ListOf,
    MapOf,
    OneOf,
    Struct,
    Text,
    shown,
    unknown_name,
)
from hybridd.core.unit_fields import Duration, Size

HUGE = 10**5000
POINT = Struct({"x": Int(), "y": Int()}, required=("x",), what="a point")


@pytest.mark.parametrize(
    ("field", "value", "made"),
    [
        (Field(), {"a": [1]}, {"a": [1]}),
        (Bool(), True, True),
        (Int(0, 5), 5, 5),
        (Float(0, 5), 5, 5.0),
        (Float(0, 5), 0.5, 0.5),
        (Text(), "ü", "ü"),
        (Choice(("a", 1, None)), 1, 1),
        (Choice(("a", 1, None)), None, None),
        (OneOf((Int(), Text())), "x", "x"),
        (ListOf(Int()), [1, 2], [1, 2]),
        (Duration(), "1h30m", 5400.0),
        (Duration(), -1, math.inf),
        (Size(), "8GiB", "8GiB"),
        (Size(), 5, 5),
        (POINT, {"x": 1}, {"x": 1}),
        (MapOf(Int()), {"a": 1}, {"a": 1}),
    ],
)
def test_what_a_field_takes(field: Field, value: Any, made: Any) -> None:
    assert field.check(value) == made
    assert type(field.check(value)) is type(made)
    json.dumps(field.schema())


REFUSALS: list[tuple[Field, list[Any], str]] = [
    (Bool(), [0, 1, "true", None, []], "takes true or false"),
    (Int(), [True, 1.0, "1", None, HUGE, -HUGE, 2**63], "takes an integer"),
    (Int(1), [0, True], "takes an integer of at least 1"),
    (Int(1, 5), [0, 6, 2.5], "takes an integer from 1 to 5"),
    (Float(), [True, "1", None, math.nan, math.inf, -math.inf, HUGE, -HUGE], "takes a number"),
    (Float(0), [-0.1, math.nan], "takes a number of at least 0"),
    (Float(0, 1), [1.01, -1, math.nan], "takes a number from 0 to 1"),
    (Text(), [1, None, b"x", ["x"]], "takes a text"),
    (Text(), ["\ud800", "a\udfff"], "takes a text of valid Unicode"),
    (Text(1), [""], "takes a text that is not empty"),
    (Text(1, 3), ["", "abcd"], "takes a text of 1 to 3 characters"),
    (Choice(("a", 1)), ["b", True, 1.0, None, [], {}], 'takes one of "a", 1'),
    (OneOf((Int(1), Choice(("auto",)))), [0, "x", True], 'an integer of at least 1, or one of "au'),
    (ListOf(Int(), max_length=2), [1, {}, "ab", [1, 2, 3]], "takes a list of 0 to 2 elements"),
    (ListOf(POINT, distinct="x"), [[{"x": 1}, {"x": 1}]], "with different values of x, each"),
    (Duration(), ["x", None, True, math.nan, HUGE], "takes a number of seconds"),
    (Size(), ["x", 1.5, -1, True, "120%"], "takes bytes"),
    (POINT, [1, [], None], "takes a point"),
    (MapOf(Int(), max_length=1), [[], {"a": 1, "b": 2}], "takes an object of up to 1 names"),
]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [(field, value, text) for field, values, text in REFUSALS for value in values],
    ids=lambda v: None if isinstance(v, Field) else shown(v)[:30] if v not in (HUGE, -HUGE) else "",
)
def test_a_refusal_says_what_it_takes(field: Field, value: Any, text: str) -> None:
    with pytest.raises(FieldError) as caught:
        field.check(value)
    assert text in str(caught.value)
    assert "got" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_inner_refusal_names_its_place() -> None:
    field = Struct({"stop": ListOf(POINT)})
    with pytest.raises(FieldError) as caught:
        field.check({"stop": [{"x": 1}, {"x": True}]})
    assert caught.value.path == "stop.1.x"
    assert str(caught.value) == "takes an integer, got true"
    with pytest.raises(FieldError) as caught:
        MapOf(Float(0, 1)).check({"a": 2})
    assert caught.value.path == "a"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    field = Struct({"temperature": Float(), "top_p": Float()})
    with pytest.raises(FieldError) as caught:
        field.check({"temprature": 1})
    assert caught.value.path == "temprature"
    assert str(caught.value) == "is no such name; did you mean 'temperature'?"
    with pytest.raises(FieldError, match="known are temperature, top_p"):
        field.check({"zzz": 1})
    assert Struct({}, open=True).check({"zzz": 1}) == {"zzz": 1}


def test_a_missing_name_is_told() -> None:
    with pytest.raises(FieldError) as caught:
        POINT.check({"y": 1})
    assert caught.value.path == "x"
    assert str(caught.value) == "is missing; it takes an integer"


def test_a_name_of_a_megabyte_is_neither_compared_nor_repeated() -> None:
    name = "temperature" * 100_000
    assert "did you mean" not in unknown_name(name, ["temperature"])
    with pytest.raises(FieldError) as caught:
        POINT.check({name: 1})
    assert len(str(caught.value)) + len(caught.value.path) < 300


@given(some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
))  # fmt: skip
def test_what_is_shown_of_a_value_is_short(value: Any) -> None:
    assert len(shown(value)) <= 80


def test_a_prompt_is_never_shown_whole() -> None:
    for value in ("x" * 10**6, ["x" * 10**6], {"a": "x" * 10**6}, ["x"] * 10**5, {"a": object()}):
        assert len(shown(value)) <= 80
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "list"
    assert shown(math.nan) == "NaN"


@pytest.mark.parametrize(
    ("field", "text", "made"),
    [
        (Bool(), " Yes ", True),
        (Bool(), "off", False),
        (Bool(), "1", True),
        (Int(), "42", 42),
        (Float(), "0.5", 0.5),
        (Text(), "42", "42"),
        (Choice(("auto", "never")), "auto", "auto"),
        (ListOf(Text(), separator=":"), "/a:/b:", ["/a", "/b"]),
        (ListOf(Text(), separator=":"), '["/a:b"]', ["/a:b"]),
        (ListOf(Text(), separator=":"), "", []),
        (Duration(), "5m", 300.0),
        (Size(), " 1024 ", 1024),
        (Size(), "80%", "80%"),
    ],
)
def test_values_written_as_text(field: Field, text: str, made: Any) -> None:
    assert field.parse(text) == made


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (Bool(), "maybe"),
        (Bool(), ""),
        (Int(), "x"),
        (Int(), "true"),
        (Int(), "1.5"),
        (Int(), "9" * 5000),
        (Int(), "[" * 100_000),
        (Float(), "nan"),
        (Float(), "NaN"),
        (Float(), "Infinity"),
        (Choice(("auto",)), "Auto"),
        (ListOf(Text()), "[1"),
        (ListOf(Text()), "[" * 100_000),
        (ListOf(Int()), "a"),
        (Duration(), "soon"),
        (Size(), "lots"),
        (Size(), "9" * 5000),
        (Size(), "²"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_a_bad_text_is_a_field_error(field: Field, text: str) -> None:
    with pytest.raises(FieldError, match="takes"):
        field.parse(text)


@given(some.floats(0, 1e9))
def test_a_duration_in_toml_is_the_same_again(seconds: float) -> None:
    for value in (seconds, math.inf):
        read = tomllib.loads(f"value = {Duration().toml(value)}")["value"]
        assert Duration().check(read) == value
