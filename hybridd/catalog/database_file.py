"""The SQLite file of the database: opened or made, put aside when it cannot be used.

A file that is broken, another program's, of a later version or not writable is put aside and
another one is made, once; where that fails too, the daemon does without. Nothing here raises for
the state of the disk. Used from one thread at a time; knows no table.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_BUSY_S = 1.0  # another daemon of this user may be writing; its transactions are short
# Another daemon is writing: this once it goes without.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED")
# The disk's trouble, which another file would have too.
_HOPELESS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM")


class DatabaseFile:
    """One database file, which may stop being usable at any moment.

    Args:
        path: The file; its directory is made.
        application: SQLite's `application_id`, so that no other program's file is taken for ours.
        schema: SQLite's `user_version`; files of others are not used.
        prepare: Called with each connection that is opened, in a transaction, and with whether
            the file is new and has no tables yet.
        remade: Called when a file was put aside, before another one is made.
    """

    def __init__(
        self,
        path: Path,
        application: int,
        schema: int,
        prepare: Callable[[sqlite3.Connection, bool], None],
        remade: Callable[[], None],
    ) -> None:
        self._path = path
        self._version = (application, schema)
        self._prepare = prepare
        self._on_remade = remade
        self._connection: sqlite3.Connection | None = None
        self._remade = False

    @property
    def usable(self) -> bool:
        """Whether there is a file to read and write."""
        return self._connection is not None

    def open(self) -> None:
        """Open or make the file; afterwards it is `usable`, or the log says why not."""
        try:
            self._connection = self._opened()
        except (sqlite3.Error, OSError, _Unusable) as error:
            self._failed(error)

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def attempt(self, act: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Do something with the file, or without when it fails: then None."""
        connection = self._connection
        if connection is None:
            return None
        try:
            return act(connection)
        except sqlite3.Error as error:
            if not _is(error, _PASSING):
                self.close()
                self._failed(error)
            return None

    def _opened(self) -> sqlite3.Connection:
        os.makedirs(self._path.parent, mode=0o700, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            # Readable beside a writer, and whole after a crash of either.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with transaction(connection):
                self._prepare(connection, self._new(connection))
        except BaseException:
            connection.close()
            raise
        return connection

    def _new(self, connection: sqlite3.Connection) -> bool:
        """Whether the file is new; it is marked as ours then.

        Raises:
            _Unusable: It is another program's, or of another version.
        """
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        if (application, schema) == self._version:
            return False
        if (application, schema) != (0, 0):
            raise _Unusable(f"it has schema {schema} of application {application:#x}")
        application, schema = self._version
        connection.execute(f"PRAGMA application_id = {application}")
        connection.execute(f"PRAGMA user_version = {schema}")
        return True

    def _failed(self, error: Exception) -> None:
        """Put the file aside and make another, once; or do without."""
        if self._remade or _is(error, (*_PASSING, *_HOPELESS)):
            _log.warning("inspections are not remembered: %s: %s", self._path, error)
            return
        self._remade = True
        self._on_remade()
        _log.warning("%s cannot be used and is put aside: %s", self._path, error)
        with suppress(OSError):
            os.replace(self._path, f"{self._path}.broken")
        for suffix in ("-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{self._path}{suffix}")
        self.open()


class _Unusable(Exception):
    """The file is a database, but not ours to use."""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of a block's changes or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is(error: Exception, kinds: tuple[str, ...]) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(kinds)
