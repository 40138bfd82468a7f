"""From the bytes of tokens to text that can be sent: whole characters, up to a stop string.

Sans-IO and the same for every engine. A token may end inside a UTF-8 character, and a stop string
may be spread over several tokens; what came out so far never has to be taken back. How the bytes
are cut into pieces makes no difference to the text.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Decodes pieces and looks for stop strings.

    Of several stop strings the first to be complete counts; the text ends where it begins. Bytes
    that are no UTF-8 become U+FFFD, as `bytes.decode(errors="replace")` has it.

        >>> stream = TextStream(["END"])
        >>> [stream.feed(piece) for piece in (b"caf\\xc3", b"\\xa9 E", b"at EN", b"D.")]
        ['caf', 'é ', 'Eat ', '']
        >>> stream.stopped
        True

    Args:
        stop: Stop strings; empty ones are ignored.

    Attributes:
        stopped: A stop string was complete; nothing more comes out.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(s for s in stop if s)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # text that a stop string may begin with
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Add a token's bytes; returns the text that is certain now."""
        if self.stopped:
            return ""
        text = self._scan(self._decoder.decode(piece))
        if not self.stopped:
            hold = self._begun(text)
            self._held = text[len(text) - hold :]
            text = text[: len(text) - hold]
        return text

    def finish(self) -> str:
        """Nothing more comes: returns the rest, with U+FFFD for a character that never ended."""
        return "" if self.stopped else self._scan(self._decoder.decode(b"", final=True))

    def _scan(self, new: str) -> str:
        """Take what was held and what is new, and cut it where a stop string is complete."""
        text, self._held = self._held + new, ""
        ends = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if not ends:
            return text
        self.stopped = True
        return text[: min(ends)[1]]

    def _begun(self, text: str) -> int:
        """How many characters at the end of `text` could be the beginning of a stop string."""
        longest = max((len(s) for s in self._stop), default=0)
        for size in range(min(longest - 1, len(text)), 0, -1):
            tail = text[len(text) - size :]
            if any(s.startswith(tail) for s in self._stop):
                return size
        return 0
