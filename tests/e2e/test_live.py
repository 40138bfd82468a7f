"""Files that change under a running daemon, and the cache that outlives it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridctl import Client, ModelNotFound
from tests.make_models import write_echo

from .conftest import RealDaemon


def wait_for(
    client: Client, kind: str, id: str, act: Callable[[], object], field: str | None = None
) -> None:
    """Do something, and return once an event of this kind (and of this field) has followed."""
    with client.events("models") as events:
        act()
        for event in events:
            if (event.type, event.raw.get("id")) == (kind, id) and (
                field is None or field in event.raw["changed"]
            ):
                return
    raise AssertionError("the events ended")


def replace(path: Path, **said: object) -> None:
    """Put a new file in the place of another, as a download does."""
    os.replace(write_echo(path.with_suffix(".part"), **said), path)


def test_a_model_that_is_replaced_while_it_is_loaded(daemon: RealDaemon) -> None:
    path = daemon.models / "parrot.echo"
    with daemon.client() as client:
        wait_for(client, "added", "parrot", lambda: write_echo(path, reply="old"))
        assert client.generate("parrot", "x").text == "old"
        wait_for(client, "changed", "parrot", lambda: replace(path, reply="new"), "files")
        (listed,) = client.list(query="parrot")
        assert (listed.status, listed.stale) == ("loaded", True)
        assert client.generate("parrot", "x").text == "old"
        client.unload("parrot")
        (listed,) = client.list(query="parrot")
        assert (listed.status, listed.stale) == ("available", False)
        assert client.generate("parrot", "x").text == "new"


def test_a_model_that_is_deleted_while_it_is_loaded(daemon: RealDaemon) -> None:
    path = daemon.models / "parrot.echo"
    with daemon.client() as client:
        wait_for(client, "added", "parrot", lambda: write_echo(path, reply="still here"))
        client.load("parrot", keepalive=-1)
        wait_for(client, "removed", "parrot", path.unlink)
        (listed,) = client.list(query="parrot")
        assert (listed.status, listed.stale) == ("loaded", True)
        (loaded,) = client.loaded()
        assert (loaded.id, loaded.raw["stale"]) == ("parrot", True)
        assert client.generate("parrot", "x").text == "still here"
        client.unload("parrot")
        assert client.list(query="parrot") == []
        with pytest.raises(ModelNotFound):
            client.generate("parrot", "x")


def test_a_broken_cache_is_put_aside(make_daemon: Callable[..., RealDaemon]) -> None:
    daemon = make_daemon()
    os.utime(write_echo(daemon.models / "parrot.echo"), (1e9, 1e9))
    with daemon.client() as client:
        client.rescan()
    daemon.stop()
    database = daemon.directory / "cache" / "hybridd" / "catalog.sqlite3"
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM facts").fetchone()[0] >= 1
    connection.close()
    database.write_bytes(b"no database" * 1000)
    daemon.start()
    with daemon.client() as client:
        assert [m.id for m in client.list(query="parrot")] == ["parrot"]
    assert database.with_name("catalog.sqlite3.broken").exists()
    assert "put aside" in daemon.log.read_text()
    daemon.stop()
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM facts").fetchone()[0] >= 1
    connection.close()
