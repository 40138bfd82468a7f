"""Untrusted text on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridctl.cli.terminal import TerminalFilter, clean, clean_line

_NASTY = st.text(
    st.sampled_from(list("a[]0;m?1\\P^_X \n\t\x07\x1b\x9b\x9c\x9d\x90\r\x08\x7f\x00ä")), max_size=40
)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("plain\n\ttext ä 中", "plain\n\ttext ä 中"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;aGk=\x1b\\after", "after"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x9b2Jafter", "after"),
        ("\x9d0;title\x9cafter", "after"),
        ("\x1b(Bafter", "after"),
        ("\x1bcafter", "after"),
        ("a\rb\x08c\x07d\x7f", "abcd"),
        ("\x1b]never ends\nnext line", "\nnext line"),
        ("\x1b[12\nnext", "\nnext"),
        ("\x1b\x1b[1mx", "x"),
    ],
)
def test_sequences_are_removed(text: str, left: str) -> None:
    assert clean(text) == left


def test_a_line_stays_a_line() -> None:
    assert clean_line("a\nb\tc\x1b[1md\u2028e") == "a b cd e"


@given(_NASTY, st.data())
def test_pieces_do_not_matter_and_nothing_is_left(text: str, data: st.DataObject) -> None:
    filtered = TerminalFilter()
    got, rest = "", text
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        got += filtered.feed(rest[:cut])
        rest = rest[cut:]
    assert got == clean(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in got)
