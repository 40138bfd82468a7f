"""One thing that the engine takes from a library without the library's promise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaning:
    """What is leaned on.

    Attributes:
        name: What it is, in the library's words.
        purpose: What the engine gains by it.
        seen: The versions with which it was seen to work.
        without: What is so where it is missing, as a note for users (`LoadedFacts.notes`).
    """

    name: str
    purpose: str
    seen: str
    without: str


class Missing(Exception):
    """Something is not there, or not as it was seen; the text is a note for users."""
