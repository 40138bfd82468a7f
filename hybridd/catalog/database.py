"""What inspections found and how models were called, in SQLite, across restarts.

Facts are good for the very files (device, inode, size, time of change) that they were read from, by
the very readers that this daemon has. The database is a cache, see `database_file`: nothing here
raises for the state of the disk. Used from one thread at a time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from hybridd.core.model import Facts
from hybridd.core.naming import Name

from .candidate import Candidate
from .database_file import DatabaseFile, transaction
from .facts_codec import decode, encode, loads

_log = logging.getLogger(__name__)

DATABASE = "catalog.sqlite3"  # in the cache directory
SCHEMA = 1
_APPLICATION = 0x68796272  # "hybr": no other program's database is taken for ours
# What was not seen for so long is forgotten; a disk that is away for a week comes back known.
KEPT_DAYS = 30
_DAY_S = 86_400

_TABLES = """
CREATE TABLE about (readers TEXT NOT NULL);
CREATE TABLE facts (key BLOB PRIMARY KEY, state BLOB NOT NULL, facts BLOB NOT NULL,
    metadata BLOB NOT NULL, template BLOB, checksum INTEGER NOT NULL, seen INTEGER NOT NULL);
CREATE TABLE templates (digest BLOB PRIMARY KEY, text BLOB NOT NULL);
CREATE TABLE names (key BLOB PRIMARY KEY, name BLOB NOT NULL, seen INTEGER NOT NULL);
"""


class Database:
    """A `FactsStore` on disk.

    Args:
        path: The database; its directory is made.
        readers: What tells these readers from others, see `backends.registry.fingerprint`.
        today: Days since the epoch.
    """

    def __init__(
        self,
        path: Path,
        readers: str,
        today: Callable[[], int] = lambda: int(time.time() // _DAY_S),
    ) -> None:
        self._file = DatabaseFile(path, _APPLICATION, SCHEMA, self._prepare, self._forget)
        self._readers = readers
        self._today = today
        self._pending: list[tuple[Any, ...]] = []
        self._expected: dict[str, Facts] = {}
        self._templates: dict[bytes, str] = {}
        self._names: dict[str, Name] = {}
        self._swept: int | None = None
        self._oldest: int | None = None  # the oldest day of what was asked for

    @property
    def usable(self) -> bool:
        """Whether anything is remembered on disk."""
        return self._file.usable

    def open(self) -> None:
        """Open or make the database; afterwards it is `usable`, or the log says why not."""
        self._file.open()

    def close(self) -> None:
        """Write what waits and close; nothing is remembered afterwards."""
        self.flush()
        self._file.close()

    # ------------------------------------------------------------ facts

    def get(self, candidate: Candidate) -> Facts | None:
        """See `FactsStore`."""
        if candidate.key not in self._expected:
            self.expect([candidate])
        return self._expected.pop(candidate.key, None)

    def expect(self, candidates: Sequence[Candidate]) -> None:
        """See `FactsStore`. One question for all of them takes a third of the time."""
        self._expected = {}
        by_key = {os.fsencode(candidate.key): candidate for candidate in candidates}
        marks = ",".join("?" * len(by_key))
        rows: list[Any] | None = self._file.attempt(
            lambda connection: connection.execute(
                "SELECT key, state, facts, metadata, template, checksum, seen FROM facts "
                f"WHERE key IN ({marks})",
                list(by_key),
            ).fetchall()
        )
        days = [row[6] if isinstance(row[6], int) else 0 for row in rows or ()]
        self._oldest = min(days if self._oldest is None else [*days, self._oldest], default=None)
        good = [
            (by_key[key], facts, metadata, template)
            for key, state, facts, metadata, template, checksum, _ in rows or ()
            if state == _state(by_key[key]) and _whole(facts, metadata, checksum)
        ]
        values = loads([facts for _, facts, _, _ in good])
        for (candidate, _, metadata, template), said in zip(good, values, strict=True):
            text = None if template is None else self._template(template)
            if said is None or (template is not None and text is None):
                continue
            with suppress(ValueError, TypeError):  # of another time, though it says otherwise
                self._expected[candidate.key] = decode(said, metadata, text, candidate.files)

    def put(self, candidate: Candidate, facts: Facts) -> None:
        """See `FactsStore`; written with the next `flush`."""
        if not self._file.usable:
            return
        try:
            encoded, metadata = encode(facts, candidate.files)
        except (ValueError, TypeError) as error:  # a third party's backend
            _log.debug("facts of %s cannot be remembered: %s", candidate.key, error)
            return
        digest = None
        if facts.chat_template is not None:
            raw = facts.chat_template.encode("utf-8", "surrogatepass")
            digest = _digest(raw)
            self._templates.setdefault(digest, facts.chat_template)
        checksum = _checksum(encoded, metadata)
        key, state = os.fsencode(candidate.key), _state(candidate)
        self._pending.append((key, state, encoded, metadata, digest, checksum, self._today()))

    def flush(self) -> None:
        """Write what was put since the last time, in one transaction."""
        if not self._pending:
            return
        rows, self._pending = self._pending, []
        texts = {row[4]: self._templates[row[4]] for row in rows if row[4] is not None}

        def write(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(
                    "INSERT OR IGNORE INTO templates VALUES (?, ?)",
                    ((d, t.encode("utf-8", "surrogatepass")) for d, t in texts.items()),
                )
                connection.executemany(
                    "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?)", rows
                )

        self._file.attempt(write)

    def keep_only(self, paths: Iterable[str]) -> None:
        """Once a day: note what is still there, and forget what was away for long."""
        today = self._today()
        if not self._file.usable or self._swept == today:
            return
        self._swept = today
        if self._oldest == today:
            return  # another start has done it today
        keys = [(today, os.fsencode(path)) for path in paths]
        old = (today - KEPT_DAYS,)

        def sweep(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                for table in ("facts", "names"):
                    connection.executemany(f"UPDATE {table} SET seen = ? WHERE key = ?", keys)
                    connection.execute(f"DELETE FROM {table} WHERE seen < ?", old)
                connection.execute(
                    "DELETE FROM templates WHERE digest NOT IN "
                    "(SELECT template FROM facts WHERE template IS NOT NULL)"
                )

        self._file.attempt(sweep)

    # ------------------------------------------------------------ names

    def names(self) -> dict[str, Name]:
        """How models were called, by key."""
        rows = (
            self._file.attempt(lambda c: c.execute("SELECT key, name FROM names").fetchall()) or []
        )
        names = {}
        for key, said in zip(
            (key for key, _ in rows), loads([raw for _, raw in rows]), strict=True
        ):
            with suppress(TypeError):
                names[os.fsdecode(key)] = Name(*said)
        self._names = dict(names)
        return names

    def keep_names(self, names: Mapping[str, Name]) -> None:
        """Remember these beside the others."""
        today = self._today()
        new = [(key, name) for key, name in names.items() if self._names.get(key) != name]
        if not new or not self._file.usable:
            return
        self._names.update(new)
        rows = [(os.fsencode(key), _name(name), today) for key, name in new]

        def write(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", rows)

        self._file.attempt(write)

    # ------------------------------------------------------------ inside

    def _template(self, digest: bytes) -> str | None:
        known = self._templates.get(digest)
        if known is None:
            row = self._file.attempt(
                lambda c: c.execute(
                    "SELECT text FROM templates WHERE digest = ?", (digest,)
                ).fetchone()
            )
            if row is None or _digest(row[0]) != digest:
                return None
            known = sys.intern(row[0].decode("utf-8", "surrogatepass"))
            self._templates[digest] = known
        return known

    def _prepare(self, connection: sqlite3.Connection, new: bool) -> None:
        """Have our tables and no other readers' facts."""
        if new:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO about VALUES (?)", (self._readers,))
        elif connection.execute("SELECT readers FROM about").fetchone() != (self._readers,):
            connection.execute("DELETE FROM facts")
            connection.execute("DELETE FROM templates")
        # Also when it says so already: where this fails nothing can be written.
        connection.execute("UPDATE about SET readers = ?", (self._readers,))

    def _forget(self) -> None:
        """Another file is made, which holds nothing yet."""
        self._swept, self._names = None, {}


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=16).digest()


def _checksum(facts: bytes, metadata: bytes) -> int:
    """SQLite does not notice a flipped bit in a row."""
    return zlib.crc32(metadata, zlib.crc32(facts))


def _whole(facts: Any, metadata: Any, checksum: Any) -> bool:
    try:
        return bool(_checksum(facts, metadata) == checksum)
    except TypeError:  # not even bytes any more
        return False


def _name(name: Name) -> bytes:
    return json.dumps([getattr(name, f.name) for f in fields(Name)]).encode("ascii")


def _state(candidate: Candidate) -> bytes:
    return _digest(repr(candidate.examined).encode())
