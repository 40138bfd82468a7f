"""What is remembered across restarts, and what becomes of a database that cannot be used."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from hybridd.backends import registry
from hybridd.backends.registry import fingerprint, load_backends
from hybridd.catalog.candidate import Addition, Candidate, Root
from hybridd.catalog.database import KEPT_DAYS, Database
from hybridd.catalog.library import Library
from hybridd.catalog.settings import CatalogSettings
from hybridd.core.model import Facts, FileIdentity
from hybridd.core.naming import Name
from hybridd.core.packed import Packed
from tests.make_models import write_gguf

IDENTITY = (FileIdentity(1, 2**63, 3, -4), FileIdentity(5, 6, 7, 8))
FULL = Facts(
    format="gguf",
    files=(Path("/m/a.gguf"), Path(os.fsdecode(b"/m/\xff.gguf"))),
    size_bytes=2**40,
    name="näme",
    base="p/n",
    architecture="llama",
    parameters=2**53 + 1,
    quantization="Q4_K_M",
    bits_per_weight=4.5,
    context_length=8192,
    capabilities=("completion", "chat"),
    weights_bytes=3,
    layers=2,
    heads=8,
    kv_heads=(2, 0),
    head_dim_k=32,
    head_dim_v=64,
    vocab_size=100,
    embedding_length=256,
    feed_forward_length=512,
    metadata={"a.b": [1, 2.5, None], "c": {"d": "é"}},
    chat_template="{{ messages }}",
    defaults={"temperature": 0.6, "stop": ["</s>"]},
    reason=None,
)


def candidate(path: str, *identity: FileIdentity, **more: Any) -> Candidate:
    """What a look found at a path."""
    files = (Path(path), *(Path(f"{path}.{n}") for n in range(1, len(identity))))
    return Candidate(
        key=path,
        format="gguf",
        path=files[0],
        root=Root(Path("/m"), "local"),
        folders=(),
        stem="a",
        is_file=True,
        files=files,
        identity=identity,
        locations=(),
        **more,
    )


class Store:
    """A database in a directory, opened as often as the test likes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "cache" / "hybridd" / "catalog.sqlite3"
        self.today = 100
        self.opened: list[Database] = []

    def __call__(self, readers: str = "r1") -> Database:
        made = Database(self.path, readers, today=lambda: self.today)
        made.open()
        self.opened.append(made)
        return made

    def again(self, readers: str = "r1") -> Database:
        """Close the last one and open another, as a restart does."""
        self.opened.pop().close()
        return self(readers)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    for database in made.opened:
        database.close()


def test_every_field_of_facts_lasts(store: Store) -> None:
    default = {f.name: f.default for f in fields(Facts)}
    same = [f.name for f in fields(Facts) if getattr(FULL, f.name) == default[f.name]]
    assert same == ["reason"], "give the new field of Facts a value here"
    invalid = Facts("gguf", (), reason="truncated: x")
    database = store()
    database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
    database.put(candidate("/m/b.gguf", *IDENTITY[:1]), invalid)
    database = store.again()
    found = database.get(candidate("/m/a.gguf", *IDENTITY))
    assert found == FULL
    assert found is not None
    assert isinstance(found.metadata, Packed)
    assert [type(v) for v in (found.files, found.kv_heads, found.capabilities)] == [tuple] * 3
    assert database.get(candidate("/m/b.gguf", *IDENTITY[:1])) == invalid


def test_facts_of_other_files_are_not_taken(store: Store) -> None:
    database = store()
    database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
    database.flush()
    assert database.get(candidate("/m/a.gguf", *IDENTITY)) == FULL
    changed = (IDENTITY[0], IDENTITY[1]._replace(mtime_ns=9))
    for other in (
        candidate("/m/a.gguf", *changed),
        candidate("/m/a.gguf"),
        candidate("/m/b.gguf", *IDENTITY),
        candidate("/m/a.gguf", *IDENTITY, reason="a manifest says so"),
        candidate("/m/a.gguf", *IDENTITY, additions=(Addition("projector", Path("/m/p")),)),
    ):
        assert database.get(other) is None


def test_other_readers_believe_nothing_but_names(store: Store) -> None:
    database = store()
    database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
    database.keep_names({"/m/a.gguf": Name("a:Q4_K_M", "a:Q4_K_M", None, "a")})
    database = store.again("r2")
    assert database.get(candidate("/m/a.gguf", *IDENTITY)) is None
    assert database.names() == {"/m/a.gguf": Name("a:Q4_K_M", "a:Q4_K_M", None, "a")}


def test_names_of_any_bytes_last(store: Store) -> None:
    key = os.fsdecode(b"/m/\xff\xfe.gguf")
    name = Name("p/n:Q8_0+x", "p/n:Q8_0", "p", "n")
    store().keep_names({key: name})
    assert store.again().names() == {key: name}


def test_what_was_away_for_long_is_forgotten(store: Store) -> None:
    database = store()
    for path in ("/m/a.gguf", "/m/b.gguf"):
        database.put(candidate(path, *IDENTITY), FULL)
        database.keep_names({path: Name(path, path, None, path)})
    for _ in range(KEPT_DAYS + 1):
        store.today += 1
        database = store.again()
        database.keep_only(["/m/a.gguf"])
    assert database.get(candidate("/m/a.gguf", *IDENTITY)) == FULL
    assert database.get(candidate("/m/b.gguf", *IDENTITY)) is None
    assert list(database.names()) == ["/m/a.gguf"]


def test_what_is_still_there_is_noted_once_a_day_however_many_starts(store: Store) -> None:
    one = candidate("/m/a.gguf", *IDENTITY)
    database = store()
    database.put(one, FULL)
    for days in (1, 0, 1):
        database = store.again()
        store.today += days
        assert database.get(one) == FULL
        with closing(sqlite3.connect(store.path)) as other:
            before = other.execute("PRAGMA data_version").fetchone()
            database.keep_only([one.key])
            written = other.execute("PRAGMA data_version").fetchone() != before
        assert written is bool(days)


def test_facts_that_json_cannot_say_are_left_out(store: Store) -> None:
    database = store()
    database.put(candidate("/m/a.gguf", *IDENTITY), replace(FULL, metadata={"a": object()}))
    database.put(candidate("/m/b.gguf", *IDENTITY), replace(FULL, defaults={"a": float("nan")}))
    database.flush()
    assert database.get(candidate("/m/a.gguf", *IDENTITY)) is None
    assert database.get(candidate("/m/b.gguf", *IDENTITY)) is None


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def _torn(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def _foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.execute("PRAGMA application_id = 1")
    connection.close()


def _other_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE facts")
    connection.close()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [_garbage, _torn, _newer, _foreign, _other_tables, _directory],
    ids=lambda f: f.__name__,
)
def test_a_database_that_cannot_be_used_is_put_aside(
    store: Store, spoil: object, caplog: pytest.LogCaptureFixture
) -> None:
    database = store()
    for number in range(200):
        database.put(candidate(f"/m/{number}.gguf", *IDENTITY), FULL)
    store.opened.pop().close()
    assert callable(spoil)
    spoil(store.path)
    with caplog.at_level(logging.WARNING):
        database = store()
        database.names()
        assert database.get(candidate("/m/7.gguf", *IDENTITY)) is None
        database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
        database.flush()
        if database.get(candidate("/m/a.gguf", *IDENTITY)) is None:  # noticed only by the write
            database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
            database.flush()
    assert database.get(candidate("/m/a.gguf", *IDENTITY)) == FULL
    assert os.path.exists(f"{store.path}.broken")
    assert [record.message.count("put aside") for record in caplog.records] == [1]
    assert store.again().get(candidate("/m/a.gguf", *IDENTITY)) == FULL


def test_a_read_only_database_is_put_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    store.opened.pop().close()
    connect = sqlite3.connect
    writable: list[str] = []

    def reading(path: Path, **how: object) -> sqlite3.Connection:
        """As SQLite opens a file that may only be read; root may write any."""
        if not os.path.exists(f"{path}.broken"):
            return connect(f"file:{path}?mode=ro", uri=True, **how)  # type: ignore[call-overload,no-any-return]
        writable.append(str(path))
        return connect(path, **how)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("hybridd.catalog.database_file.sqlite3.connect", reading)
    database = store()
    assert writable
    database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
    database.flush()
    assert database.get(candidate("/m/a.gguf", *IDENTITY)) == FULL


def test_a_directory_that_cannot_be_made_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").touch()
    database = Database(tmp_path / "cache" / "x" / "catalog.sqlite3", "r1")
    database.open()
    assert not database.usable
    database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
    database.flush()
    database.keep_only([])
    database.keep_names({"a": Name("a", "a", None, "a")})
    assert database.get(candidate("/m/a.gguf", *IDENTITY)) is None
    assert database.names() == {}
    database.close()
    assert "not remembered" in caplog.text


def test_another_daemon_that_writes_is_no_reason_to_give_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridd.catalog.database_file._BUSY_S", 0.0)
    database = store()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
    database.flush()
    other.execute("ROLLBACK")
    other.close()
    database.put(candidate("/m/b.gguf", *IDENTITY), FULL)
    database.flush()
    assert database.usable
    assert database.get(candidate("/m/b.gguf", *IDENTITY)) == FULL


def test_a_flipped_bit_is_noticed(store: Store) -> None:
    database = store()
    database.put(candidate("/m/a.gguf", *IDENTITY), FULL)
    database.flush()
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE facts SET facts = replace(facts, '8192', '8193')")
    connection.close()
    assert database.get(candidate("/m/a.gguf", *IDENTITY)) is None


def test_other_sources_are_other_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    backends = load_backends()
    first = fingerprint(backends)
    assert fingerprint(backends) == first
    assert fingerprint({"gguf": backends["gguf"]}) != first
    monkeypatch.setattr(registry, "__version__", "0.0.0")
    assert fingerprint(backends) != first


def test_a_restart_opens_no_model_file(tmp_path: Path, store: Store) -> None:
    root = tmp_path / "models"
    for name in ("p/r/x-Q4_K_M.gguf", "p/r/y-Q4_K_M.gguf"):
        os.utime(write_gguf(root / name), (1e9, 1e9))
    backends = load_backends()

    def start() -> Library:
        database = Database(store.path, "r1")
        settings = CatalogSettings(backends, [root], demo=False, settle_s=0.05, reconcile_s=300.0)
        library = Library(settings, lambda *_, **__: None, facts=database)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(library.run)
                await library.wait_complete()
                nursery.cancel_scope.cancel()

        trio.run(main)
        assert not database.usable
        return library

    first = start().snapshot
    # The earlier of the two goes: the other keeps the id that it had.
    (root / "p/r/x-Q4_K_M.gguf").unlink()
    kept = [r for r in first.models.values() if r.path.name.startswith("y")]
    path = kept[0].path
    times = path.stat()
    raw = path.read_bytes()
    path.write_bytes(b"\0" * len(raw))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = start().snapshot
    assert list(second.models) == [kept[0].id] == ["p/r:Q4_K_M+y-Q4_K_M"]
    assert second.models[kept[0].id].available, "the file was read"
    shutil.rmtree(store.path.parent)
    assert not any(record.available for record in start().snapshot.models.values())
