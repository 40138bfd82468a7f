"""What inspections found and how models were called, in SQLite, across restarts.

Facts are good for the very files (device, inode, size, time of change) that they were read from, by
the very readers that this daemon has. The database is a cache: one that is broken, of a later
version or not writable is put aside and made anew, and where that fails too the daemon does
without. Nothing here raises for the state of the disk. Used from one thread at a time.
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
from typing import Any, TypeVar

from hybridd.core.model import Facts
from hybridd.core.naming import Name

from .candidate import Candidate
from .facts_codec import decode, encode, loads

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

DATABASE = "catalog.sqlite3"  # in the cache directory
SCHEMA = 1
_APPLICATION = 0x68796272  # "hybr": no other program's database is taken for ours
# What was not seen for so long is forgotten; a disk that is away for a week comes back known.
KEPT_DAYS = 30
_BUSY_S = 1.0  # another daemon of this user may be writing; its transactions are short
_DAY_S = 86_400

_TABLES = """
CREATE TABLE about (readers TEXT NOT NULL);
CREATE TABLE facts (key BLOB PRIMARY KEY, state BLOB NOT NULL, facts BLOB NOT NULL,
    metadata BLOB NOT NULL, template BLOB, checksum INTEGER NOT NULL, seen INTEGER NOT NULL);
CREATE TABLE templates (digest BLOB PRIMARY KEY, text BLOB NOT NULL);
CREATE TABLE names (key BLOB PRIMARY KEY, name BLOB NOT NULL, seen INTEGER NOT NULL);
"""
# Another daemon is writing: this once it goes without.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED")
# The disk's trouble, which another file would have too.
_HOPELESS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM")


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
        self._path = path
        self._readers = readers
        self._today = today
        self._pending: list[tuple[Any, ...]] = []
        self._expected: dict[str, Facts] = {}
        self._templates: dict[bytes, str] = {}
        self._names: dict[str, Name] = {}
        self._swept: int | None = None
        self._seen: int | None = None  # the oldest day of what was asked for
        self._connection: sqlite3.Connection | None = None
        self._remade = False

    @property
    def usable(self) -> bool:
        """Whether anything is remembered on disk."""
        return self._connection is not None

    def open(self) -> None:
        """Open or make the database; afterwards it is `usable`, or the log says why not."""
        try:
            self._connection = self._opened()
        except (sqlite3.Error, OSError, _Unusable) as error:
            self._failed(error)

    def close(self) -> None:
        """Write what waits and close; nothing is remembered afterwards."""
        self.flush()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

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
        rows: list[Any] | None = self._try(
            lambda connection: connection.execute(
                "SELECT key, state, facts, metadata, template, checksum, seen FROM facts "
                f"WHERE key IN ({marks})",
                list(by_key),
            ).fetchall()
        )
        days = [row[6] if isinstance(row[6], int) else 0 for row in rows or ()]
        self._seen = min(days if self._seen is None else [*days, self._seen], default=None)
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
        if self._connection is None:
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
            with _Transaction(connection):
                connection.executemany(
                    "INSERT OR IGNORE INTO templates VALUES (?, ?)",
                    ((d, t.encode("utf-8", "surrogatepass")) for d, t in texts.items()),
                )
                connection.executemany(
                    "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?)", rows
                )

        self._try(write)

    def keep_only(self, paths: Iterable[str]) -> None:
        """Once a day: note what is still there, and forget what was away for long."""
        today = self._today()
        if self._connection is None or self._swept == today:
            return
        self._swept = today
        if self._seen == today:
            return  # another start has done it today
        keys = [(today, os.fsencode(path)) for path in paths]
        old = (today - KEPT_DAYS,)

        def sweep(connection: sqlite3.Connection) -> None:
            with _Transaction(connection):
                for table in ("facts", "names"):
                    connection.executemany(f"UPDATE {table} SET seen = ? WHERE key = ?", keys)
                    connection.execute(f"DELETE FROM {table} WHERE seen < ?", old)
                connection.execute(
                    "DELETE FROM templates WHERE digest NOT IN "
                    "(SELECT template FROM facts WHERE template IS NOT NULL)"
                )

        self._try(sweep)

    # ------------------------------------------------------------ names

    def names(self) -> dict[str, Name]:
        """How models were called, by key."""
        rows = self._try(lambda c: c.execute("SELECT key, name FROM names").fetchall()) or []
        found = {}
        for key, said in zip(
            (key for key, _ in rows), loads([raw for _, raw in rows]), strict=True
        ):
            with suppress(TypeError):
                found[os.fsdecode(key)] = Name(*said)
        self._names = dict(found)
        return found

    def keep_names(self, names: Mapping[str, Name]) -> None:
        """Remember these beside the others."""
        today = self._today()
        new = [(key, name) for key, name in names.items() if self._names.get(key) != name]
        if not new or self._connection is None:
            return
        self._names.update(new)
        rows = [(os.fsencode(key), _name(name), today) for key, name in new]

        def write(connection: sqlite3.Connection) -> None:
            with _Transaction(connection):
                connection.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", rows)

        self._try(write)

    # ------------------------------------------------------------ inside

    def _template(self, digest: bytes) -> str | None:
        known = self._templates.get(digest)
        if known is None:
            row = self._try(
                lambda c: c.execute(
                    "SELECT text FROM templates WHERE digest = ?", (digest,)
                ).fetchone()
            )
            if row is None or _digest(row[0]) != digest:
                return None
            known = sys.intern(row[0].decode("utf-8", "surrogatepass"))
            self._templates[digest] = known
        return known

    def _opened(self) -> sqlite3.Connection:
        os.makedirs(self._path.parent, mode=0o700, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            # Readable beside a writer, and whole after a crash of either.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with _Transaction(connection):
                self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Have our tables and no other readers' facts.

        Raises:
            _Unusable: It is another program's, or of a later version.
        """
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if (application, version) == (0, 0):
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO about VALUES (?)", (self._readers,))
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        elif (application, version) != (_APPLICATION, SCHEMA):
            raise _Unusable(f"it has schema {version} of application {application:#x}")
        elif connection.execute("SELECT readers FROM about").fetchone() != (self._readers,):
            connection.execute("DELETE FROM facts")
            connection.execute("DELETE FROM templates")
        # Also when it says so already: where this fails nothing can be written.
        connection.execute("UPDATE about SET readers = ?", (self._readers,))

    def _try(self, act: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Do something with the database, or without when it fails."""
        connection = self._connection
        if connection is None:
            return None
        try:
            return act(connection)
        except sqlite3.Error as error:
            if not _is(error, _PASSING):
                self._connection = None
                with suppress(sqlite3.Error):
                    connection.close()
                self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        """Put the file aside and make another, once; or do without."""
        if self._remade or _is(error, (*_PASSING, *_HOPELESS)):
            _log.warning("inspections are not remembered: %s: %s", self._path, error)
            return
        self._remade = True
        self._swept, self._names = None, {}
        _log.warning("%s cannot be used and is put aside: %s", self._path, error)
        with suppress(OSError):
            os.replace(self._path, f"{self._path}.broken")
        for suffix in ("-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{self._path}{suffix}")
        self.open()


class _Unusable(Exception):
    """The file is a database, but not ours to use."""


class _Transaction:
    """All of a block's changes or none."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:
            self._connection.execute("COMMIT")
        else:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def _is(error: Exception, kinds: tuple[str, ...]) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(kinds)


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
