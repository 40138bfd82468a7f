"""Which model drafts for another, what it adds to a load, and when that is another load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridd.core.model import Estimate, ModelRecord, Spread
from hybridd.core.naming import resolve
from hybridd.serving.options.draft_models import named, of, with_draft
from hybridd.wire.errors import InvalidParams, ModelNotFound, Unsupported
from tests.serving.support import FakeBackend, record, running


def other(id: str, **facts: Any) -> ModelRecord:
    made = record(id)
    return replace(made, facts=replace(made.facts, **facts))


MODELS = {
    r.id: r
    for r in (
        record("big"),
        record("p/small:Q8_0", size=9, aliases=("tiny",)),
        other("elsewhere", format="other"),
        other("vectors", capabilities=("embedding",)),
    )
}
BACKEND = FakeBackend()


async def loadable(query: str) -> ModelRecord:
    return MODELS[resolve(query, MODELS)]


async def name(query: str | None, model: str = "big", **more: Any) -> Any:
    wanted = {"context_length": 5, "draft_model": query}
    return await named(wanted, MODELS[model], BACKEND, loadable, MODELS, **more)


@pytest.mark.parametrize("query", ["p/small:Q8_0", "p/small", "tiny", "small"])
async def test_it_is_named_as_models_are(query: str) -> None:
    found = await name(query)
    assert found == {"context_length": 5, "draft_model": "p/small:Q8_0"}
    assert of(found, MODELS) is MODELS["p/small:Q8_0"]
    assert of(found, {}) is None


async def test_null_is_as_if_nothing_had_been_said() -> None:
    found = await name(None)
    assert found == {"context_length": 5}
    assert of(found, MODELS) is None


async def test_a_model_may_draft_for_itself() -> None:
    assert (await name("big"))["draft_model"] == "big"


async def test_what_drafts_already_is_not_looked_for() -> None:
    assert (await name("gone", in_force=record("gone")))["draft_model"] == "gone"


@pytest.mark.parametrize(
    ("query", "model", "error", "said"),
    [
        ("nothing", "big", ModelNotFound, "there is no model 'nothing'"),
        ("/m/p/small:Q8_0", "big", ModelNotFound, "there is no model"),
        ("elsewhere", "big", InvalidParams, "elsewhere is a other model and cannot draft for big"),
        ("vectors", "big", InvalidParams, "vectors generates no text"),
        ("tiny", "vectors", Unsupported, "vectors generates none"),
    ],
)
async def test_what_is_refused(query: str, model: str, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        await name(query, model)


async def test_a_format_without_draft_models() -> None:
    plain = FakeBackend()
    plain.drafting = None
    options = {"draft_model": "nothing"}
    with pytest.raises(Unsupported, match="not supported for fake models"):
        await named(options, MODELS["big"], plain, loadable, MODELS)
    estimate, facts = Estimate(40, 1, 1, 1, 5, 1), MODELS["big"].facts
    assert with_draft(estimate, facts, {"draft_model": "big"}, plain, MODELS) is estimate


def test_what_it_needs_is_added() -> None:
    plain, facts = Estimate(40, 10, 20, 30, 5, 1, spread=Spread(1, 0.0)), MODELS["big"].facts
    added = with_draft(plain, facts, {"draft_model": "p/small:Q8_0"}, BACKEND, MODELS)
    assert added == replace(
        plain,
        weights_bytes=49,
        kv_cache_bytes=14,
        compute_bytes=23,
        overhead_bytes=32,
        spread=None,
    )
    assert with_draft(plain, facts, {"draft_model": "gone"}, BACKEND, MODELS) is plain
    assert with_draft(plain, facts, {}, BACKEND, MODELS) is plain


@pytest.mark.usefixtures("autojump_clock")
async def test_the_worker_is_told_where_it_lies_and_who_names_another_reloads(
    tmp_path: Path,
) -> None:
    models = (record("a"), record("b", size=9), record("c", size=8))
    async with running(tmp_path, *models) as (world, begin):
        load = begin(world.manager.load, "a", load_options={"draft_model": "b"})
        worker = await world.host.worker(0)
        (supervisor,) = world.residency.supervisors.values()
        assert supervisor.spec["draft"] == {"model": "b", "path": "/m/b"}
        worker.ready()
        await load.over.wait()
        assert load.value["load_options"]["draft_model"] == "b"
        assert load.value["devices"] == [{"device": "cpu", "bytes": 40 + 9 + 4 + 3 + 2}]
        for options in ({"draft_model": "b"}, {"draft_model": None}, {}):
            again = begin(world.manager.load, "a", load_options=options)
            await again.over.wait()
            assert again.value["pid"] == worker.pid
        other = begin(world.manager.load, "a", load_options={"draft_model": "c"})
        worker = await world.host.worker(1)
        (supervisor,) = world.residency.supervisors.values()
        assert supervisor.spec["draft"]["model"] == "c"
        worker.ready()
        await other.over.wait()
        assert other.value["load_options"]["draft_model"] == "c"


@pytest.mark.usefixtures("autojump_clock")
async def test_a_load_is_refused_where_both_have_no_room(tmp_path: Path) -> None:
    async with running(tmp_path, record("a"), record("b", size=70)) as (world, begin):
        load = begin(world.manager.load, "a", load_options={"draft_model": "b"})
        await load.over.wait()
        assert load.kind == "does_not_fit"
        assert world.host.workers == []


@pytest.mark.usefixtures("autojump_clock")
async def test_nobody_leaves_for_a_draft_model_that_cannot_draft(tmp_path: Path) -> None:
    models = record("a", size=60), record("c", size=50), other("unlike", vocab_size=7)
    async with running(tmp_path, *models) as (world, begin):
        load = begin(world.manager.load, "c")
        (await world.host.worker(0)).ready()
        await load.over.wait()
        for model in ("a", "c"):  # one for which another had to leave, one that would be reloaded
            options = {"draft_model": "unlike", "context_length": 60}
            load = begin(world.manager.load, model, load_options=options)
            await load.over.wait()
            assert load.kind == "load_failed"
            assert "unlike cannot draft for" in str(load.error)
        assert world.manager.loaded_models == ["c"]
        assert len(world.host.workers) == 1


@pytest.mark.usefixtures("autojump_clock")
async def test_a_draft_model_that_leaves_goes_on_drafting(tmp_path: Path) -> None:
    async with running(tmp_path, record("a"), record("b", size=9)) as (world, begin):
        world.manager.settings.change(record("a"), {"load_options": {"draft_model": "b"}}, set())
        load = begin(world.manager.load, "a")
        (await world.host.worker(0)).ready()
        await load.over.wait()
        assert not load.value["stale"]
        world.manager.departed(world.library.snapshot.models.pop("b"))
        world.manager.files_changed("b")
        asked = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await world.host.workers[0].reply("y")
        await asked.over.wait()
        assert asked.value["text"] == "y"
        (shown,) = await world.manager.loaded()
        assert shown["stale"]
        await world.manager.unload("a")
        again = begin(world.manager.load, "a")
        await again.over.wait()
        assert again.kind == "model_not_found"


@pytest.mark.usefixtures("autojump_clock")
async def test_a_name_goes_on_meaning_what_drafts(tmp_path: Path) -> None:
    """Whatever comes, goes or is written anew: what is loaded is no other load."""
    builds = [record(f"p/small:{tag}", size=size) for tag, size in (("Q8_0", 9), ("Q4_0", 5))]
    options = {"draft_model": "small"}
    async with running(tmp_path, record("a"), *builds) as (world, begin):
        world.manager.settings.change(record("a"), {"load_options": options}, set())
        load = begin(world.manager.load, "a")
        first = await world.host.worker(0)
        first.ready()
        await load.over.wait()
        assert load.value["load_options"]["draft_model"] == "p/small:Q8_0"
        models = world.library.snapshot.models

        async def still_drafting() -> bool:
            asked = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
            await first.reply("y")
            await asked.over.wait()
            (shown,) = (m for m in await world.manager.loaded() if m["id"] == "a")
            return bool(asked.value["text"] == "y" and shown["pid"] == first.pid)

        # Another build is loaded for somebody else, which a name without a tag prefers.
        other = begin(world.manager.load, "p/small:Q4_0")
        (await world.host.worker(1)).ready()
        await other.over.wait()
        assert await still_drafting()
        for id in ("p/small:F16", "q/small-talk:Q8_0"):
            models[id] = record(id, size=20)
            assert await still_drafting()
        models["p/small:Q8_0"] = record("p/small:Q8_0", status="invalid", reason="truncated")
        assert await still_drafting()
        world.manager.departed(models.pop("p/small:Q8_0"))
        world.manager.files_changed("p/small:Q8_0")
        assert await still_drafting()
        assert "p/small:Q8_0" not in world.manager.listed()
        # What is another load anyway takes the name as it is now, and is refused by itself.
        larger = begin(world.manager.load, "a", load_options={"context_length": 9000})
        await larger.over.wait()
        assert larger.kind == "model_ambiguous"
        assert await still_drafting()
        # Who names another build gets it.
        again = begin(world.manager.load, "a", load_options={"draft_model": "p/small:Q4_0"})
        (await world.host.worker(2)).ready()
        await again.over.wait()
        assert again.value["load_options"]["draft_model"] == "p/small:Q4_0"


@pytest.mark.usefixtures("autojump_clock")
async def test_what_came_of_drafts_is_told(tmp_path: Path) -> None:
    async with running(tmp_path, record("a")) as (world, begin):
        asked = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        worker = await world.host.worker(0)
        worker.ready()
        key = (await worker.heard("start"))["request"]["id"]
        timings = {"prompt_s": 1.0, "generation_s": 1.0}
        timings |= {"draft_tokens": 9, "draft_accepted_tokens": 7}
        worker.say("done", id=key, result={"finish_reason": "stop", "timings": timings})
        await asked.over.wait()
        assert asked.value["timings"]["draft_tokens"] == 9
        assert asked.value["timings"]["draft_accepted_tokens"] == 7
