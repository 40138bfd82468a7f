"""Sequence states on disk: conversations that outlive the worker (`kv.persist`).

One file a state: a line of JSON, the tokens, llama.cpp's data. A file counts only if it was written
by this engine for these weights and options, and its digest is right: native code reads the data,
and a file may have been cut off. Others are removed. At a load only headers and tokens are read;
the data comes when a prompt begins with them.

The daemon keeps the directories of all models within the budget; a file may vanish at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice

from .slots import MIN_COPIED_TOKENS
from .state_cache import SavedState, most_useful

_log = logging.getLogger(__name__)
_SUFFIX = ".state"
_UNFINISHED = ".unfinished"
# A header has some 200 bytes; what claims more is none of ours.
_MAX_HEADER_BYTES = 4096
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class _Known:
    """A file whose header is right."""

    path: Path
    tokens: array[int]
    start: int  # of the data
    size: int  # of the data
    digest: str
    adapters: AdapterChoice


class PersistedStates:
    """The states of one model; made at its load, written at its end.

    Args:
        directory: There already; "" keeps nothing.
        budget: Bytes that this model may use.
        owner: What a state has to have been made for: weights, options, engine.
        whole, window: As `state_cache.can_cut` has them.
    """

    def __init__(
        self,
        directory: str,
        budget: int,
        owner: Mapping[str, Any],
        *,
        whole: bool,
        window: int = 0,
    ) -> None:
        self._directory = Path(directory) if directory and budget > 0 else None
        self._budget = budget
        text = json.dumps(dict(owner), sort_keys=True)
        self._owner = hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
        self._whole = whole
        self._window = window
        self._known: list[_Known] = self._read_headers() if self._directory else []

    def __len__(self) -> int:
        return len(self._known)

    def find(
        self, prompt: Sequence[int], least: int, adapters: AdapterChoice = NO_ADAPTERS
    ) -> tuple[SavedState, int] | None:
        """`most_useful` of the states whose data can still be read."""
        while best := most_useful(
            self._known, prompt, least, adapters, whole=self._whole, window=self._window
        ):
            known, length = best
            if (data := self._read(known)) is not None:
                return SavedState(known.tokens, data, adapters), length
            self._known.remove(known)
        return None

    @property
    def enabled(self) -> bool:
        """Whether anything may be kept."""
        return self._directory is not None

    def write(self, states: Iterable[SavedState]) -> None:
        """Keep states, the most valuable first, as far as the budget goes; others go.

        Failing to write costs the conversation only.
        """
        if self._directory is None:
            return
        left, kept = self._budget, set()
        for state in states:
            if state.size > left or len(state.tokens) < MIN_COPIED_TOKENS:
                continue
            try:
                kept.add(self._write(self._directory, state))
            except OSError as exc:
                _log.warning("a conversation could not be kept: %s", exc.strerror)
                break
            left -= state.size
        newest = sorted(self._known, key=_written_at, reverse=True)
        for known in newest:
            left -= known.size if known.path not in kept else 0
            if left < 0:
                _remove(known.path)

    # ------------------------------------------------------------------ files

    def _write(self, directory: Path, state: SavedState) -> Path:
        tokens, adapters = state.tokens.tobytes(), _text(state.adapters)
        header = {
            "owner": self._owner,
            "tokens": len(state.tokens),
            "bytes": len(state.data),
            "adapters": state.adapters,
            "digest": _digest(adapters, tokens, state.data),
        }
        of = self._owner.encode() + adapters + tokens
        name = hashlib.blake2b(of, digest_size=16).hexdigest()
        path = directory / (name + _SUFFIX)
        unfinished = directory / (name + _UNFINISHED)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(tokens)
                file.write(state.data)
            unfinished.replace(path)
        except OSError:
            _remove(unfinished)  # where the disk is full, it is what fills it
            raise
        return path

    def _read_headers(self) -> list[_Known]:
        assert self._directory is not None
        known_states: list[_Known] = []
        try:
            paths = list(self._directory.iterdir())
        except OSError as exc:
            _log.warning("no kept conversation can be read: %s", exc.strerror)
            return []
        for path in paths:
            known = self._read_header(path) if path.suffix == _SUFFIX else None
            if known is None:
                _remove(path)
            else:
                known_states.append(known)
        return known_states

    def _read_header(self, path: Path) -> _Known | None:
        try:
            with path.open("rb") as file:
                line = file.readline(_MAX_HEADER_BYTES)
                header = json.loads(line)
                if header["owner"] != self._owner:
                    return None
                tokens = array("i")
                count, size = int(header["tokens"]), int(header["bytes"])
                rest = path.stat().st_size - len(line) - count * tokens.itemsize
                if count < MIN_COPIED_TOKENS or size < 0 or rest != size:
                    return None
                tokens.frombytes(file.read(count * tokens.itemsize))
                adapters = tuple((str(c), float(scale)) for c, scale in header["adapters"])
                start, digest = file.tell(), str(header["digest"])
                return _Known(path, tokens, start, size, digest, adapters)
        except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return None

    def _read(self, known: _Known) -> bytearray | None:
        try:
            data = bytearray(known.size)
            with known.path.open("rb") as file:
                file.seek(known.start)
                if file.readinto(data) != known.size:
                    return None
            os.utime(known.path)
        except (OSError, MemoryError):
            return None
        if _digest(_text(known.adapters), known.tokens.tobytes(), data) != known.digest:
            _remove(known.path)
            return None
        return data


def _text(adapters: AdapterChoice) -> bytes:
    return json.dumps(adapters).encode()


def _digest(*parts: bytes | bytearray) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _written_at(known: _Known) -> int:
    try:
        return known.path.stat().st_mtime_ns
    except OSError:
        return 0


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
