"""The library: with a fake disk and a mock clock where time matters, then on the real one."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.backends.api import Backend, Estimate, Facts
from hybridd.backends.registry import load_backends
from hybridd.catalog import resolving
from hybridd.catalog.candidate import Candidate, Root
from hybridd.catalog.library import Library
from hybridd.catalog.records import CHANGING
from hybridd.catalog.schedule import POLL_S
from hybridd.catalog.seen import Seen
from hybridd.catalog.settings import CatalogSettings
from hybridd.catalog.stores import DEMO_PATH
from hybridd.catalog.walk import Listing, Source
from hybridd.catalog.watch import Hint
from hybridd.core.model import FileIdentity, Location
from hybridd.wire.errors import ModelAmbiguous, ModelInvalid, ModelNotFound
from tests.make_models import write_echo, write_gguf, write_gguf_shards, write_hf

PATIENCE_S = 20.0
EPOCH = 1_000_000_000.0
ROOT = Root(Path("/models"), "local")


class FakeBackend:
    """Knows what each path is by a table."""

    name = "gguf"
    suffixes = (".gguf",)
    tagged = True

    def __init__(self) -> None:
        self.answers: dict[str, Facts | Exception] = {}
        self.asked: list[str] = []

    def inspect(self, path: Path) -> Facts:
        self.asked.append(path.name)
        answer = self.answers.get(path.name)
        if isinstance(answer, Exception):
            raise answer
        return answer or Facts("gguf", (path,), quantization="Q4_K_M", weights_bytes=7)

    def estimate(self, facts: Facts, load_options: Mapping[str, Any]) -> Estimate:
        raise NotImplementedError


class FakeWatcher:
    """Hints when told; ends with the library."""

    def __init__(self, on_hint: Hint) -> None:
        self.on_hint = on_hint
        self.polling = False
        self.remedy: str | None = None
        self.watched: list[Path] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    def update(self, roots: Sequence[Path], linked: Sequence[Path] = ()) -> None:
        self.watched = [*roots, *linked]


class World:
    """A disk of made-up files, and everything that a library says about them."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[FileIdentity, ...]] = {}
        self.backend = FakeBackend()
        self.events: list[tuple[str, str]] = []
        self.raw: list[dict[str, Any]] = []
        self.looks = 0
        self.look_takes = 0.0
        self.inspection_takes = 0.0
        self.watchers: list[FakeWatcher] = []
        self.library = Library(
            CatalogSettings(
                {"gguf": self.backend},  # type: ignore[dict-item]
                [ROOT.path],
                demo=False,
                settle_s=1.0,
                reconcile_s=300.0,
            ),
            self.publish,
            scan=self.scan,
            watcher=self.watcher,
            in_thread=self.in_thread,
            wall=lambda: EPOCH + trio.current_time() - self.start,
        )
        self.start = 0.0

    def watcher(self, on_hint: Hint) -> FakeWatcher:
        self.watchers.append(FakeWatcher(on_hint))
        return self.watchers[-1]

    def publish(self, topic: str, kind: str, **data: Any) -> None:
        assert topic == "models"
        assert data["revision"] == self.library.snapshot.revision
        self.events.append((kind, data["id"]))
        self.raw.append(data)

    def put(self, name: str, *, age: float = 100.0, size: int = 10) -> None:
        """Write a file whose time is `age` seconds ago."""
        now = EPOCH + trio.current_time() - self.start
        self.files[name] = (FileIdentity(1, hash(name), size, int((now - age) * 1e9)),)

    def scan(
        self,
        sources: Sequence[Source],
        formats: Mapping[str, object],
        stop: Callable[[], bool],
        seen: Seen,
    ) -> Listing:
        self.looks += 1
        return Listing(
            [
                Candidate(
                    key=f"/models/{name}",
                    format="gguf",
                    path=Path("/models", name),
                    root=ROOT,
                    folders=tuple(name.split("/")[:-1]),
                    stem=name.rpartition("/")[2].removesuffix(".gguf"),
                    is_file=True,
                    files=(Path("/models", name),),
                    identity=identity,
                    locations=(Location("local", Path("/models", name)),),
                )
                for name, identity in sorted(self.files.items())
                if "gguf" in formats
            ]
        )

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        inspects = getattr(function, "func", function).__name__ == "inspect"
        await trio.sleep(self.look_takes + (self.inspection_takes if inspects else 0.0))
        return function()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Library]:
        self.start = trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.library.run)
            yield self.library
            nursery.cancel_scope.cancel()

    def status(self) -> dict[str, str]:
        models = self.library.snapshot.models
        return {key: model.reason or model.status for key, model in models.items()}

    def hint(self, *touched: str) -> None:
        self.watchers[0].on_hint(frozenset(touched) if touched else None)


def simulate(test: Callable[[], Any]) -> None:
    """Run with a clock that jumps to the next deadline when all tasks wait."""
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_the_first_look_lists_what_is_there() -> None:
    async def main() -> None:
        world = World()
        world.put("b.gguf")
        world.put("a.gguf")
        assert not world.library.snapshot.complete
        async with world.running() as library:
            await library.wait_complete()
            assert world.events == [("added", "a:Q4_K_M"), ("added", "b:Q4_K_M")]
            assert library.snapshot.complete
            assert library.snapshot.scanned_at == pytest.approx(EPOCH, abs=1)
            assert library.watching == "inotify"
            assert world.watchers[0].watched == [Path("/models")]

    simulate(main)


def test_started_comes_before_the_first_look() -> None:
    async def main() -> None:
        world = World()
        world.look_takes = 50.0
        world.put("a.gguf")
        before = trio.current_time()
        async with world.running() as library:
            assert trio.current_time() == before
            record = await library.find("a")  # waits for the look that is under way
            assert trio.current_time() >= before + 50
            assert record.id == "a:Q4_K_M"

    simulate(main)


def test_a_new_file_is_listed_once_it_rests() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as library:
            await library.wait_complete()
            world.put("a.gguf", age=0.0)
            began = trio.current_time()
            world.hint()
            await trio.sleep(0.9)
            assert world.status() == {}
            await trio.sleep(0.2)
            assert world.status() == {"a:Q4_K_M": "available"}
            assert trio.current_time() - began < 2

    simulate(main)


def test_a_file_that_keeps_growing_is_never_inspected() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as library:
            await library.wait_complete()
            for size in range(100):
                world.put("a.gguf", age=0.0, size=size)
                world.hint()
                await trio.sleep(0.5)
                assert world.backend.asked == []
            await trio.sleep(1.1)
            assert world.backend.asked == ["a.gguf"]

    simulate(main)


def test_a_time_in_the_future_rests_by_being_seen_unchanged() -> None:
    async def main() -> None:
        world = World()
        world.put("a.gguf", age=-10_000.0)
        async with world.running() as library:
            await library.wait_complete()
            assert world.status() == {}
            await trio.sleep(1.1)
            assert world.status() == {"a:Q4_K_M": "available"}

    simulate(main)


def test_a_listed_file_that_is_written_again() -> None:
    async def main() -> None:
        world = World()
        world.put("a.gguf")
        async with world.running() as library:
            await library.wait_complete()
            world.put("a.gguf", age=0.0, size=5)
            world.hint()
            await trio.sleep(0.3)
            assert world.status() == {"a:Q4_K_M": CHANGING}
            await trio.sleep(1.0)
            assert world.status() == {"a:Q4_K_M": "available"}
            assert world.events == [
                ("added", "a:Q4_K_M"),
                ("changed", "a:Q4_K_M"),
                ("changed", "a:Q4_K_M"),
            ]
            assert world.raw[1]["changed"] == ["status", "reason"]
            assert world.raw[1]["status"] == "invalid"
            assert "files" in world.raw[2]["changed"]
            assert library.snapshot.revision == 3

    simulate(main)


def test_invalid_files_are_listed_and_tried_again_when_they_change() -> None:
    async def main() -> None:
        world = World()
        world.backend.answers["a.gguf"] = ModelInvalid("bad", reason="truncated: x")
        world.put("a.gguf")
        async with world.running() as library:
            await library.wait_complete()
            assert world.status() == {"a": "truncated: x"}
            await library.rescan()
            assert world.backend.asked == ["a.gguf"]
            del world.backend.answers["a.gguf"]
            world.put("a.gguf", size=20)
            answer = await library.rescan()
            assert world.status() == {"a:Q4_K_M": "available"}
            assert (answer["added"], answer["removed"], answer["total"]) == (1, 1, 1)

    simulate(main)


def test_a_truncated_file_keeps_its_id_when_it_is_whole() -> None:
    async def main() -> None:
        world = World()
        facts = Facts("gguf", (), quantization="Q8_0", reason="truncated: x")
        world.backend.answers["a.gguf"] = facts
        world.put("a.gguf")
        async with world.running() as library:
            await library.wait_complete()
            assert world.status() == {"a:Q8_0": "truncated: x"}
            world.backend.answers["a.gguf"] = Facts("gguf", (), quantization="Q8_0")
            world.put("a.gguf", age=0.0, size=20)
            world.hint()
            await trio.sleep(0.5)
            assert world.status() == {"a:Q8_0": "truncated: x"}
            await trio.sleep(1.0)
            assert world.status() == {"a:Q8_0": "available"}

    simulate(main)


def test_what_a_backend_raises_is_a_reason() -> None:
    async def main() -> None:
        world = World()
        world.backend.answers["a.gguf"] = RuntimeError("a bug")
        world.backend.answers["b.gguf"] = PermissionError(13, "Permission denied")
        world.backend.answers["c.gguf"] = FileNotFoundError(2, "gone")
        for name in "abc":
            world.put(f"{name}.gguf")
        async with world.running() as library:
            await library.wait_complete()
            assert world.status() == {
                "a": "the backend failed on it (RuntimeError)",
                "b": "cannot be read: Permission denied",
            }
            # What could not be read is tried again without a change of the file.
            del world.backend.answers["b.gguf"]
            await library.rescan()
            assert world.status()["b:Q4_K_M"] == "available"
            assert world.backend.asked.count("a.gguf") == 1

    simulate(main)


def test_rescan_answers_for_a_look_begun_after_the_call() -> None:
    async def main() -> None:
        world = World()
        world.look_takes = 10.0
        async with world.running() as library:
            await library.wait_complete()
            looks = world.looks
            world.put("a.gguf")
            answers: list[dict[str, Any]] = []

            async def ask(after: float) -> None:
                await trio.sleep(after)
                answers.append(await library.rescan())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, 0.0)
                nursery.start_soon(ask, 0.0)
                nursery.start_soon(ask, 15.0)  # while that look is under way
            assert world.looks == looks + 2
            assert [answer["added"] for answer in answers][:2] == [1, 1]
            assert answers[0]["total"] == 1
            assert answers[0]["seconds_s"] >= 10

    simulate(main)


def test_rescan_waits_for_a_copy_that_has_just_ended_but_not_for_ever() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as library:
            await library.wait_complete()
            world.put("a.gguf", age=0.0)
            answer = await library.rescan()
            assert answer["added"] == 1
            assert 0.9 < answer["seconds_s"] < 1.5

            async def grow() -> None:
                for size in range(1000):
                    world.put("b.gguf", age=0.0, size=size)
                    await trio.sleep(0.1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(grow)
                answer = await library.rescan()
                nursery.cancel_scope.cancel()
            assert answer["added"] == 0
            assert answer["seconds_s"] < 2.5

    simulate(main)


def test_a_slow_look_does_not_answer_without_what_came_to_rest_meanwhile() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as library:
            await library.wait_complete()
            world.put("first.gguf", age=0.7)
            world.put("last.gguf", age=0.0)
            world.inspection_takes = 3.0  # the look that finds the first one at rest
            answer = await library.rescan()
            assert answer["added"] == 2
            assert set(library.snapshot.models) == {"first:Q4_K_M", "last:Q4_K_M"}

    simulate(main)


def test_progress_of_a_rescan_and_a_caller_that_leaves() -> None:
    async def main() -> None:
        world = World()
        world.look_takes = 1.0
        told: list[tuple[str, int, int]] = []
        async with world.running() as library:
            await library.wait_complete()
            world.put("a.gguf")
            with trio.move_on_after(0.5):
                await library.rescan()
            await library.rescan(progress=lambda *args: told.append(args))
            assert told[-1] == ("inspect", 1, 1)

    simulate(main)


def test_find_waits_for_what_is_coming_to_rest() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as library:
            await library.wait_complete()
            world.put("a.gguf", age=0.0)
            world.hint()
            await trio.sleep(0.1)
            assert (await library.find("a")).id == "a:Q4_K_M"
            began = trio.current_time()
            with pytest.raises(ModelNotFound):
                await library.find("b")
            assert trio.current_time() == began

    simulate(main)


def test_find_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        for number in range(20):
            world.put(f"model-{number}.gguf")
        async with world.running() as library:
            await library.wait_complete()
            monkeypatch.setattr(resolving, "FEW", 10)
            assert (await library.find("model-7:Q4_K_M")).id == "model-7:Q4_K_M"
            assert (await library.find("MODEL-7")).id == "model-7:Q4_K_M"
            with pytest.raises(ModelAmbiguous):
                await library.find("model")
            with pytest.raises(ModelNotFound):
                await library.find("nothing")

    simulate(main)


def test_find_shows_invalid_models_too() -> None:
    async def main() -> None:
        world = World()
        world.backend.answers["a.gguf"] = ModelInvalid("bad", reason="no")
        world.put("a.gguf")
        async with world.running() as library:
            await library.wait_complete()
            assert (await library.find("a")).reason == "no"

    simulate(main)


def test_aliases() -> None:
    async def main() -> None:
        world = World()
        world.put("a.gguf")
        async with world.running() as library:
            await library.wait_complete()
            library.set_aliases({"a:Q4_K_M": ["me"], "gone": ["x"]})
            await library.rescan()
            assert (await library.find("me")).aliases == ("me",)
            assert world.raw[-1]["changed"] == ["aliases"]

    simulate(main)


def test_hints_in_a_burst_do_not_make_it_look_all_the_time() -> None:
    async def main() -> None:
        world = World()
        world.look_takes = 0.1
        async with world.running() as library:
            await library.wait_complete()
            looks = world.looks
            for _ in range(1000):
                world.hint()
                await trio.sleep(0.01)
            assert world.looks - looks < 30
            world.put("late.gguf")  # after the last hint: its event was lost
            await trio.sleep(3)
            assert "late:Q4_K_M" in library.snapshot.models

    simulate(main)


@pytest.mark.parametrize(("polling", "period"), [(False, 300.0), (True, POLL_S)])
def test_it_looks_without_any_hint(polling: bool, period: float) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as library:
            await library.wait_complete()
            world.watchers[0].polling = polling
            await library.rescan()
            assert library.watching == ("polling" if polling else "inotify")
            looks = world.looks
            await trio.sleep(period * 10.5)
            assert world.looks - looks == 10

    simulate(main)


def test_reconfigure() -> None:
    async def main() -> None:
        world = World()
        world.put("a.gguf")
        async with world.running() as library:
            await library.wait_complete()
            other = [Path("/other"), Path("/other")]
            library.reconfigure(replace(library.settings, model_dirs=other, settle_s=5.0))
            await trio.sleep(0.1)
            assert world.watchers[0].watched == [Path("/other")]
            library.reconfigure(replace(library.settings, backends={}, demo=True))
            await trio.sleep(0.1)
            assert world.watchers[0].watched == [DEMO_PATH, Path("/other")]

    simulate(main)


# ---------------------------------------------------------------- the real disk


class Published:
    """Waits for what a library publishes."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[tuple[str, str]](10_000)

    def __call__(self, topic: str, kind: str, *, id: str, **_: Any) -> None:
        self.send.send_nowait((kind, id))

    async def until(self, kind: str, model: str) -> None:
        with trio.fail_after(PATIENCE_S):
            while await self.receive.receive() != (kind, model):
                pass


BACKENDS: Mapping[str, Backend] = load_backends()


@asynccontextmanager
async def real(*roots: Path, settle_s: float = 0.05, demo: bool = False) -> AsyncIterator[Any]:
    published = Published()
    library = Library(
        CatalogSettings(BACKENDS, roots, demo=demo, settle_s=settle_s, reconcile_s=300.0), published
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(library.run)
        with trio.fail_after(PATIENCE_S):
            await library.wait_complete()
        yield library, published
        nursery.cancel_scope.cancel()


def status(library: Library) -> dict[str, str]:
    return {key: model.status for key, model in library.snapshot.models.items()}


def test_models_come_and_go_on_the_real_disk(tmp_path: Path) -> None:
    root = tmp_path / "later" / "models"

    async def main() -> None:
        async with real(root) as (library, published):
            assert status(library) == {}
            write_gguf(root / "p/r/x-Q4_K_M.gguf")
            await published.until("added", "p/r:Q4_K_M")
            write_hf(root / "org/name")
            await published.until("added", "org/name")
            write_echo(root / "parrot.echo")
            await published.until("added", "parrot")
            (root / "parrot.echo").unlink()
            await published.until("removed", "parrot")
            shutil.rmtree(root / "org")
            await published.until("removed", "org/name")
            (root / "p/r/x-Q4_K_M.gguf").rename(root / "loose.gguf")
            await published.until("added", "loose:Q4_K_M")
            assert status(library) == {"loose:Q4_K_M": "available"}

    trio.run(main)


def test_half_written_files_are_never_available(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "elsewhere.gguf").read_bytes()
    root = tmp_path / "models"

    async def main() -> None:
        async with real(root) as (library, _):
            root.mkdir()
            with (root / "x.gguf").open("wb") as file:
                for at in range(0, len(whole), len(whole) // 5):
                    file.write(whole[at : at + len(whole) // 5])
                    file.flush()
                    await library.rescan()
                    complete = file.tell() == len(whole)
                    states = set(status(library).values())
                    assert states <= ({"available", "invalid"} if complete else {"invalid"})
            await library.rescan()
            assert set(status(library).values()) == {"available"}

    trio.run(main)


def test_what_no_event_told_is_noticed_before_a_load(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf")
    os.utime(path, (1e9, 1e9))

    async def main() -> None:
        async with real(tmp_path) as (library, _):
            record = await library.find("x")
            assert await library.fresh(record) is record
            with path.open("r+b") as file:  # stays open: nothing tells of it
                file.truncate(path.stat().st_size - 64)
                assert library.snapshot.models[record.id].available
                after = await library.fresh(record)
                assert not after.available
                assert library.snapshot.models[record.id] is after
            path.unlink()
            with pytest.raises(ModelNotFound):
                await library.fresh(record)

    trio.run(main)


def test_a_file_that_goes_on_being_written_without_events(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "elsewhere").read_bytes()
    root = tmp_path / "models"
    root.mkdir()

    async def main() -> None:
        async with real(root, settle_s=0.3) as (library, published):
            with (root / "x.gguf").open("wb") as file:
                file.write(whole[:-100])
                file.flush()
                await published.until("added", "x:Q4_K_M")
                reason = library.snapshot.models["x:Q4_K_M"].reason
                assert reason is not None
                assert "truncated" in reason
                file.write(whole[-100:])
            await published.until("changed", "x:Q4_K_M")
            while not library.snapshot.models["x:Q4_K_M"].available:
                await published.until("changed", "x:Q4_K_M")

    trio.run(main)


def test_a_root_that_is_a_symlink_is_watched(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")

    async def main() -> None:
        async with real(tmp_path / "root") as (library, published):
            write_echo(tmp_path / "real" / "a.echo")
            await published.until("added", "a")
            write_echo(tmp_path / "real" / "sub" / "b.echo")
            await published.until("added", "b")
            (tmp_path / "real" / "a.echo").unlink()
            await published.until("removed", "a")
            assert list(library.snapshot.models) == ["b"]

    trio.run(main)


def test_a_root_that_is_replaced(tmp_path: Path) -> None:
    os.utime(write_echo(tmp_path / "root" / "a.echo"), (1e9, 1e9))
    os.utime(write_echo(tmp_path / "other" / "b.echo"), (1e9, 1e9))

    async def main() -> None:
        async with real(tmp_path / "root") as (library, published):
            (tmp_path / "root").rename(tmp_path / "old")
            await published.until("removed", "a")
            (tmp_path / "other").rename(tmp_path / "root")
            await published.until("added", "b")
            write_echo(tmp_path / "root" / "c.echo")
            await published.until("added", "c")
            assert list(library.snapshot.models) == ["b", "c"]

    trio.run(main)


def test_shards_and_downloads_are_complete_when_the_last_file_is(tmp_path: Path) -> None:
    paths = write_gguf_shards(tmp_path / "big", 3)
    paths[1].rename(tmp_path / "big.part")

    async def main() -> None:
        async with real(tmp_path) as (library, published):
            await library.rescan()
            (only,) = library.snapshot.models.values()
            assert only.reason == "incomplete: shard 2 of 3 missing"
            (tmp_path / "big.part").rename(paths[1])
            await published.until("changed", "big:Q4_K_M")
            await library.rescan()
            assert status(library) == {"big:Q4_K_M": "available"}

    trio.run(main)


def test_the_packaged_models_have_their_names(tmp_path: Path) -> None:
    if not DEMO_PATH.exists():
        pytest.skip("this checkout has no demo models")
    write_hf(tmp_path / "hybridd/demo-hf")

    async def main() -> None:
        async with real(tmp_path, demo=True) as (library, _):
            await library.rescan()
            assert status(library) == {
                "hybridd/demo-gguf": "available",
                "hybridd/demo-hf": "available",
                "hybridd/demo-hf@local": "available",
            }
            assert library.snapshot.models["hybridd/demo-hf"].store == "demo"
            library.reconfigure(replace(library.settings, demo=False))
            await library.rescan()
            # It keeps the name that it had: a file's id does not change while the file stays.
            assert list(library.snapshot.models) == ["hybridd/demo-hf@local"]

    trio.run(main)


def test_a_burst_ends_with_the_catalog_equal_to_the_disk(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()

    async def main() -> None:
        async with real(root) as (library, published):
            for number in range(300):
                write_echo(root / f"d{number % 7}" / f"m{number}.echo")
                if number % 3 == 0:
                    os.unlink(root / f"d{number % 7}" / f"m{number}.echo")
                await trio.lowlevel.checkpoint()
            write_echo(root / "last.echo")
            await published.until("added", "last")
            await library.rescan()
            expected = {f"m{number}" for number in range(300) if number % 3} | {"last"}
            assert set(library.snapshot.models) == expected

    trio.run(main)
