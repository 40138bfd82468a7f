"""TextStream: the text does not depend on how its bytes come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.engine.output.text import TextStream

SMALL = st.text(alphabet="abcé世", max_size=30)
STOPS = st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3)


def run(pieces: Sequence[bytes], stop: Sequence[str] = ()) -> tuple[list[str], bool]:
    stream = TextStream(stop)
    deltas = [stream.feed(piece) for piece in pieces]
    return [*deltas, stream.finish()], stream.stopped


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(n % (len(data) + 1) for n in at)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.binary(max_size=60), st.lists(st.integers(0, 1000), max_size=10))
def test_any_bytes_decode_as_in_one_piece(data: bytes, at: list[int]) -> None:
    deltas, _ = run(cut(data, at))
    assert "".join(deltas) == data.decode("utf-8", "replace")


@given(SMALL, STOPS, st.lists(st.integers(0, 1000), max_size=10))
def test_any_cutting_gives_the_same_text(text: str, stop: list[str], at: list[int]) -> None:
    data = text.encode()
    deltas, stopped = run(cut(data, at), stop)
    whole, whole_stopped = run([bytes([b]) for b in data], stop)
    assert "".join(deltas) == "".join(whole)
    assert stopped == whole_stopped


@given(SMALL, STOPS, st.lists(st.integers(0, 1000), max_size=10))
def test_text_ends_before_the_first_stop_string_that_is_complete(
    text: str, stop: list[str], at: list[int]
) -> None:
    deltas, stopped = run(cut(text.encode(), at), stop)
    said = "".join(deltas)
    assert text.startswith(said)
    if not stopped:
        assert said == text
        assert not any(s in text for s in stop)
    else:
        assert any(text[len(said) :].startswith(s) for s in stop)
        assert not any(s in said for s in stop)


@given(SMALL, STOPS)
def test_holds_back_only_what_a_stop_string_could_begin_with(text: str, stop: list[str]) -> None:
    stream = TextStream(stop)
    said = "".join(stream.feed(bytes([b])) for b in text.encode())
    if not stream.stopped:
        held = text[len(said) :]
        assert held == "" or any(s.startswith(held) for s in stop)


def test_stop_string_over_several_tokens_is_never_sent() -> None:
    deltas, stopped = run([b"say E", b"N", b"D now"], ["END"])
    assert deltas == ["say ", "", "", ""]
    assert stopped


def test_a_false_beginning_is_sent_once_it_is_none() -> None:
    deltas, stopped = run([b"a E", b"N", b"X"], ["END"])
    assert deltas == ["a ", "", "ENX", ""]
    assert not stopped


def test_a_beginning_at_the_end_is_text() -> None:
    deltas, stopped = run([b"the EN"], ["END"])
    assert deltas == ["the ", "EN"]
    assert not stopped


@pytest.mark.parametrize("stop", [["abcd", "bc"], ["bc", "abcd"]])
def test_of_two_the_first_to_be_complete_counts(stop: list[str]) -> None:
    assert run([b"abcd"], stop) == (["a", ""], True)


def test_a_character_that_never_ends_becomes_one_replacement() -> None:
    deltas, _ = run([b"x\xe4", b"\xb8"])
    assert deltas == ["x", "", "\ufffd"]


def test_nothing_comes_after_the_stop() -> None:
    stream = TextStream(["."])
    assert [stream.feed(b"a."), stream.feed(b"b"), stream.finish()] == ["a", "", ""]
