"""Which of the models a list shows, and where its next page begins.

Pure: models and what runs of them come in, those that are asked for go out. How they are encoded is
the caller's business, as is what other tasks do between two slices of a long list.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from hybridd.core.model import ModelRecord
from hybridd.wire.errors import InvalidParams

# Encoding a model takes about 15 us: ten thousand must not hold the loop.
SLICE = 200
_IN_MEMORY = frozenset({"loaded", "sleeping"})


class Running(Protocol):
    """What is laid over the catalog's own view of a model, as far as a query asks for it."""

    @property
    def status(self) -> str | None:
        """The model's status where something runs of it; None leaves the catalog's."""
        ...


_R = TypeVar("_R", bound=Running)


@dataclass(frozen=True, slots=True)
class Query:
    """What a client asks for.

    Attributes:
        text: Words that all have to occur in the id or an alias, in any case.
        format: Only models of this format.
        loaded: Only those in memory, or only the others; None for both.
        unusable: Whether models that cannot be loaded are listed too.
        limit: The most models of one page.
        after: The id that the page before ended with.
    """

    text: str | None = None
    format: str | None = None
    loaded: bool | None = None
    unusable: bool = False
    limit: int | None = None
    after: str = ""


class Page(Generic[_R]):
    """One page of a list of models.

    Args:
        query: What is asked for.
        models: All models by id, sorted by id.
        usable: Whether a model can be loaded.
        overlay: What runs of the model with an id, if anything does.

    Attributes:
        next_cursor: Where the next page begins, once all slices were taken; None after the last.
    """

    def __init__(
        self,
        query: Query,
        models: Mapping[str, ModelRecord],
        usable: Callable[[ModelRecord], bool],
        overlay: Callable[[str], _R | None],
    ) -> None:
        self.next_cursor: str | None = None
        self._query = query
        self._words = query.text.casefold().split() if query.text else []
        self._models = models
        self._usable = usable
        self._overlay = overlay

    def slices(self) -> Iterator[list[tuple[ModelRecord, _R | None]]]:
        """The page's models with what runs of them, for each `SLICE` models of all."""
        query, rest = self._query, iter(self._models.values())
        count, last = 0, ""
        while records := list(islice(rest, SLICE)):
            shown: list[tuple[ModelRecord, _R | None]] = []
            for record in filter(self._asked_for, records):
                running = self._overlay(record.id)
                status = (running and running.status) or record.status
                if query.loaded is not None and (status in _IN_MEMORY) is not query.loaded:
                    continue
                if count == query.limit:
                    self.next_cursor = encode_cursor(last)
                    yield shown
                    return
                shown.append((record, running))
                count, last = count + 1, record.id
            yield shown

    def _asked_for(self, record: ModelRecord) -> bool:
        """Whether a model is asked for, going by the catalog."""
        query = self._query
        return (
            record.id > query.after
            and (query.unusable or self._usable(record))
            and (query.format is None or record.format == query.format)
            and (not self._words or _contains(record, self._words))
        )


def _contains(record: ModelRecord, words: list[str]) -> bool:
    text = " ".join((record.id, *record.aliases)).casefold()
    return all(word in text for word in words)


def encode_cursor(id: str) -> str:
    """The cursor of a page that begins after a model."""
    return base64.urlsafe_b64encode(id.encode()).decode()


def decode_cursor(cursor: str | None) -> str:
    """The id after which a page begins; the empty text for the first.

    Raises:
        InvalidParams: It is no cursor of `encode_cursor`.
    """
    if cursor is None:
        return ""
    try:
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidParams(
            "cursor takes the next_cursor of an earlier models.list",
            field="cursor",
            reason="no cursor of models.list",
        ) from None
