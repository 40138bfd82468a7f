"""States of conversations on disk: whose directory, for how long, within which budget."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from hybridd.host.memory import main_memory
from hybridd.serving.kept_states import KeptStates
from tests.serving.support import running


def states(root: Path, host_cache: Any = 0, persist: Any = 0) -> KeptStates:
    return KeptStates(root, {"kv.host_cache": host_cache, "kv.persist": persist}.__getitem__)


def keep(root: Path, name: str, size: int, used: int) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def test_the_host_cache(tmp_path: Path) -> None:
    assert states(tmp_path, "512MiB").host_cache_bytes == 512 * 1024 * 1024
    assert states(tmp_path, 5).host_cache_bytes == 5
    assert states(tmp_path, "50%").host_cache_bytes == main_memory()[0] // 2
    assert states(tmp_path).host_cache_bytes == 0


def test_a_directory_for_each_model_and_for_nobody_else(tmp_path: Path) -> None:
    root = tmp_path / "cache" / "kv"
    made = states(root, persist="1MB")
    one = made.for_load("publisher/repo:Q4_K_M", 7, persist=True)
    assert one["host_cache_bytes"] == 7
    assert one["persist_bytes"] == 1_000_000
    other = made.for_load("x" * 4000, 0, persist=True)
    assert (
        made.for_load("publisher/repo:Q4_K_M", 0, persist=True)["persist_dir"]
        == (one["persist_dir"])
    )
    assert Path(one["persist_dir"]).parent == Path(other["persist_dir"]).parent == root
    for directory in (root, Path(one["persist_dir"])):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    root = tmp_path / "kv"
    root.mkdir(mode=0o755)
    states(root, persist=1).for_load("m", 0, persist=True)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


@pytest.mark.parametrize(("persist", "can"), [(0, True), ("1GB", False)])
def test_nothing_is_made_where_nothing_is_kept(tmp_path: Path, persist: Any, can: bool) -> None:
    made = states(tmp_path / "kv", persist=persist)
    assert made.for_load("m", 3, persist=can) == {
        "host_cache_bytes": 3, "persist_bytes": 0, "persist_dir": "",
    }  # fmt: skip
    assert not (tmp_path / "kv").exists()
    assert not made.present()


def test_a_directory_that_cannot_be_made_costs_nothing_but_the_states(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kv").write_text("a file")
    made = states(tmp_path / "kv", persist=100).for_load("m", 3, persist=True)
    assert (made["persist_bytes"], made["persist_dir"]) == (0, "")
    assert "not kept on disk" in caplog.text


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    old = keep(tmp_path, "a/1", 40, used=1)
    new = keep(tmp_path, "b/1", 40, used=3)
    middle = keep(tmp_path, "a/2", 40, used=2)
    states(tmp_path, persist=120).trim()
    assert old.exists()
    states(tmp_path, persist=119).trim()
    assert [path.exists() for path in (old, middle, new)] == [False, True, True]
    states(tmp_path, persist=40).trim()
    assert [path.exists() for path in (middle, new)] == [False, True]
    states(tmp_path, persist=0).trim()
    assert not new.exists()


def test_reading_is_using(tmp_path: Path) -> None:
    read, unread = keep(tmp_path, "read", 10, used=1), keep(tmp_path, "unread", 10, used=2)
    os.utime(read, (3, 1))
    states(tmp_path, persist=10).trim()
    assert read.exists()
    assert not unread.exists()


def test_a_link_is_removed_and_not_what_it_names(tmp_path: Path) -> None:
    outside = keep(tmp_path / "outside", "file", 10, used=1)
    root = tmp_path / "kv"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    states(root, persist=0).trim()
    assert outside.exists()
    assert not (root / "link").is_symlink()


def test_a_share_of_the_disk(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    total = status.f_blocks * status.f_frsize
    assert states(tmp_path / "absent" / "kv", persist="50%").persist_bytes() == total // 2


# By the real clock: one that jumps does not know of threads.
def test_a_disk_that_cannot_be_asked_costs_the_states_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load and the daemon go on: both are asked from where an exception would end more."""

    def stale(_path: Path) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle")

    kept = keep(tmp_path, "m/1.state", 10, 1)
    made = states(tmp_path, persist="10%")
    monkeypatch.setattr(shutil, "disk_usage", stale)
    spec = made.for_load("m", 7, persist=True)
    assert (spec["persist_bytes"], spec["persist_dir"]) == (0, "")
    made.trim()
    assert kept.exists()

    def forbidden(_path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert not made.present()


async def test_what_a_worker_may_keep_of_conversations(tmp_path: Path) -> None:
    size = 100 * 1024 * 1024
    async with running(tmp_path, room=10 * size) as (world, begin):
        world.configuration.set({"kv.host_cache": size, "kv.persist": "5MB"}, persist=False)
        load = begin(world.manager.load, "a")
        while not world.host.workers:
            await trio.lowlevel.checkpoint()
        worker = world.host.workers[0]
        kv = (await worker.heard("load"))["spec"]["kv"]
        directory = Path(kv.pop("persist_dir"))
        assert kv == {"host_cache_bytes": size, "persist_bytes": 5_000_000}
        assert directory.parent == tmp_path / "kv"
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        worker.ready()
        await load.over.wait()
        assert load.value["memory"]["host_cache_bytes"] == size
        assert load.value["memory"]["reserved_bytes"] == 40 + size
        (directory / "too much").write_bytes(bytes(5_000_001))
        (directory / "enough").write_bytes(bytes(100))
        os.utime(directory / "too much", (1, 1))
        trim = world.residency.states.trim
        trimmed, heard = trio.open_memory_channel[None](9)

        def told() -> None:
            trim()
            trio.from_thread.run_sync(trimmed.send_nowait, None)

        world.residency.states.trim = told  # type: ignore[method-assign]
        await world.manager.unload("a")
        await heard.receive()
        assert os.listdir(directory) == ["enough"]
        world.configuration.set({"kv.persist": 0}, persist=False)
        await heard.receive()
        assert os.listdir(directory) == []
