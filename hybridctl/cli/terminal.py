"""Keeps text that nobody here wrote from driving the terminal.

A model's words, and names and metadata from model files, may hold escape sequences: they would
retitle the window, write to the clipboard or overwrite what was printed before.
"""

from __future__ import annotations

# Of the control characters only newline and tab are kept: C0, DEL, C1.
_CONTROL = dict.fromkeys([*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)])

_GROUND, _ESCAPE, _INTERMEDIATE, _CSI, _STRING, _STRING_ESCAPE = range(6)
_STRING_STARTS = "]PX^_"  # OSC, DCS, SOS, PM, APC: they swallow what follows up to ST or BEL
_C1_STRINGS = "\x90\x98\x9d\x9e\x9f"


class TerminalFilter:
    """Removes terminal control sequences from a text that comes in pieces.

    A small reading of ECMA-48. A sequence may be split over pieces, so the state is kept between
    them. A newline ends every sequence: one that never ends may hide a line, not the answer.
    """

    def __init__(self) -> None:
        self._state = _GROUND

    def feed(self, text: str) -> str:
        """Return what of the next piece may be printed."""
        if self._state == _GROUND and text.translate(_CONTROL) == text:
            return text
        return "".join(character for character in text if self._keeps(character))

    def _keeps(self, character: str) -> bool:
        state = self._state
        if character == "\n":
            self._state = _GROUND
            return True
        if character == "\x1b":
            self._state = _STRING_ESCAPE if state == _STRING else _ESCAPE
        elif state == _STRING:
            if character in "\x07\x9c":
                self._state = _GROUND
        elif state == _STRING_ESCAPE:
            self._state = _GROUND if character == "\\" else _STRING
        elif state == _CSI:
            if not " " <= character <= "?":
                self._state = _GROUND
        elif state in (_ESCAPE, _INTERMEDIATE):
            self._state = self._after_escape(state, character)
        elif character == "\x9b":
            self._state = _CSI
        elif character in _C1_STRINGS:
            self._state = _STRING
        else:
            return ord(character) not in _CONTROL
        return False

    @staticmethod
    def _after_escape(state: int, character: str) -> int:
        if state == _ESCAPE and character == "[":
            return _CSI
        if state == _ESCAPE and character in _STRING_STARTS:
            return _STRING
        return _INTERMEDIATE if " " <= character <= "/" else _GROUND


def clean(text: str) -> str:
    """`text` without control sequences, newlines and tabs kept."""
    return TerminalFilter().feed(text)


def clean_line(text: str) -> str:
    """`text` as it may stand in one line of a table."""
    return text if text.isprintable() else " ".join(clean(text).split())
