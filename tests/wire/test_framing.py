"""Bytes in, lines out; and what is no strict JSON is refused before it costs anything."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.wire.errors import LineTooLong, ParseError
from hybridd.wire.framing import (
    MAX_DEPTH,
    MAX_LINE_VALUES,
    LineDecoder,
    count_values,
    decode_line,
    encode_line,
)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


def lines_of(decoder: LineDecoder) -> list[bytes]:
    found = []
    while (line := decoder.next_line()) is not None:
        found.append(line)
    return found


@given(
    some.lists(some.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=12),
    some.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")),
    some.lists(some.integers(0, 10_000), max_size=12),
)
def test_any_chunking_gives_the_same_lines(
    lines: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    decoder, found = LineDecoder(64), []
    for chunk in chunks(b"".join(line + b"\n" for line in lines) + rest, cuts):
        decoder.feed(chunk)
        found += lines_of(decoder)
    assert found == lines
    assert decoder.pending_bytes == len(rest)


@pytest.mark.parametrize("step", [1, 7, 100])
def test_the_limit_of_bytes_is_exact_however_they_come(step: int) -> None:
    def taken(size: int) -> list[bytes]:
        decoder, found = LineDecoder(10), []
        data = b"x" * size + b"\n"
        for start in range(0, len(data), step):
            decoder.feed(data[start : start + step])
            found += lines_of(decoder)
        return found

    assert taken(10) == [b"x" * 10]
    with pytest.raises(LineTooLong) as caught:
        taken(11)
    assert caught.value.code == -32600
    assert caught.value.data == {"limit_bytes": 10}


def test_a_refused_line_is_dropped_whole() -> None:
    decoder = LineDecoder(10)
    decoder.feed(b"x" * 500)
    with pytest.raises(LineTooLong):
        decoder.next_line()
    assert decoder.pending_bytes == 0
    assert decoder.next_line() is None


def test_a_line_of_a_hundred_megabytes_costs_little() -> None:
    decoder, chunk = LineDecoder(16 * 1024 * 1024), b"x" * 65536
    tracemalloc.start()
    try:
        refused = 0
        for _ in range(1600):
            decoder.feed(chunk)
            try:
                assert decoder.next_line() is None
            except LineTooLong:
                refused += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused == 6
    assert peak <= 36 * 1024 * 1024  # a growing bytearray is moved: twice the limit for a moment


json_values = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**70), 2**70)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(max_size=8)
    | some.sampled_from([',,,,"', '":[{', "\\", '\\"', ""]),
    lambda inner: (
        some.lists(inner, max_size=5) | some.dictionaries(some.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


def values_in(value: object) -> int:
    if isinstance(value, list):
        return 1 + sum(map(values_in, value))
    if isinstance(value, dict):
        return 1 + sum(map(values_in, value.values()))
    return 1


def keys_in(value: object) -> int:
    if isinstance(value, list):
        return sum(map(keys_in, value))
    if isinstance(value, dict):
        return len(value) + sum(map(keys_in, value.values()))
    return 0


def containers_in(value: object) -> int:
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return int(isinstance(value, (list, dict))) + sum(map(containers_in, inner))


@given(json_values, some.booleans())
def test_the_count_of_values_is_an_upper_bound_and_a_close_one(
    value: object, ascii_only: bool
) -> None:
    line = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    exact = count_values(line, 0)
    assert exact >= values_in(value)
    assert exact <= values_in(value) + keys_in(value) + containers_in(value)
    # The cheap count may say more, but never less.
    assert count_values(line, 10**9) >= exact


def test_commas_in_strings_are_no_values() -> None:
    line = json.dumps({"prompt": "a,b:[{" * 100_000}).encode()
    assert decode_line(line) == json.loads(line)
    many = json.dumps(["," * (MAX_LINE_VALUES + 1), *[""] * (MAX_LINE_VALUES - 2)]).encode()
    assert len(decode_line(many)) == MAX_LINE_VALUES - 1


@pytest.mark.parametrize(
    "line",
    [
        b"[" + b"0," * MAX_LINE_VALUES + b"0]",
        b"[" + b"[]," * MAX_LINE_VALUES + b"0]",
        b'["\\\\",' + b"0," * MAX_LINE_VALUES + b'"\\""]',
    ],
)
def test_too_many_values_are_refused_unparsed(line: bytes) -> None:
    with pytest.raises(LineTooLong) as caught:
        decode_line(line)
    assert caught.value.data == {"limit_values": MAX_LINE_VALUES}


BAD = [
    b"",
    b"{",
    b"nonsense",
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":1e999}',
    b'{"a":-1e999}',
    b'{"a":1,"a":2}',
    b'{"a":{"b":1,"b":1}}',
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 90_000 + b"1" + b"}" * 90_000,
    b"9" * 5_000,
    b'{"a":' + b"-" + b"9" * 5_000 + b"}",
    b'"\xff\xfe"',
    b'"\xc3"',
    b'"\xed\xa0\x80"',  # a surrogate has no place in UTF-8
    b"\xef\xbb\xbf{}",  # a byte order mark
    b'"a\tb"',
    b"1 2",
    b"{} {}",
    b"01",
    b".5",
    b"'a'",
    b"\x00",
]


@pytest.mark.parametrize("line", BAD)
def test_what_is_no_strict_json_is_a_parse_error(line: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        decode_line(line)
    assert len(caught.value.message) < 300


def test_a_duplicate_key_is_named() -> None:
    with pytest.raises(ParseError, match="'model' stands twice"):
        decode_line(b'{"model":"a","model":"b"}')


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return (opening * depth + "0" + closing * depth).encode()

    assert encode_line(decode_line(nested(MAX_DEPTH))) == nested(MAX_DEPTH) + b"\n"
    with pytest.raises(ParseError, match="nested"):
        decode_line(nested(MAX_DEPTH + 1))


def test_only_nesting_counts_as_depth() -> None:
    flat = json.dumps([[{}]] * 10_000 + ["[{" * 10_000]).encode()
    assert decode_line(flat) == json.loads(flat)


@given(json_values)
def test_what_is_encoded_is_decoded(value: object) -> None:
    line = encode_line(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_line(line[:-1]) == value


def test_a_lone_surrogate_travels_as_an_escape() -> None:
    line = encode_line({"path": "\udcff", "text": "ü"})
    assert line.isascii()
    assert decode_line(line[:-1]) == {"path": "\udcff", "text": "ü"}
    assert decode_line(b'"\\ud800"') == "\ud800"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_has_not_is_never_sent(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_line({"a": value})
