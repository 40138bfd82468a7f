"""Which adapters a load means, where they lie, and what they weigh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hybridd.backends import huggingface
from hybridd.core.model import Estimate, ModelRecord, Spread
from hybridd.serving.options.adapters import named, placed, with_weights
from hybridd.wire.errors import InvalidParams, ModelNotFound, Unsupported
from tests.serving.support import FakeBackend, record, running

FAKE = FakeBackend()


def adapter(id: str, format_name: str = "fake") -> ModelRecord:
    made = record(id, size=7, status="invalid", reason="a LoRA adapter")
    facts = replace(made.facts, format=format_name, metadata={"card": {"kind": "adapter"}})
    return replace(made, facts=facts)


MODELS = {r.id: r for r in (record("a"), adapter("p/lora:F16"), adapter("other", "elsewhere"))}


def wanted(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"adapters": [{"name": n, "path_or_id": i} for n, i in pairs], "context_length": 5}


@pytest.mark.parametrize("query", ["p/lora:F16", "p/lora", "lora", "LORA", "/m/p/lora:F16"])
def test_an_adapter_is_named_as_the_catalog_names_it_or_by_its_path(query: str) -> None:
    found = named(wanted(("mine", query)), MODELS, FAKE)
    assert found == wanted(("mine", "p/lora:F16"))
    assert placed(found, MODELS) == [{"name": "mine", "path": "/m/p/lora:F16"}]
    assert placed(found, {}) == []


@pytest.mark.parametrize("query", ["/etc/passwd", "/m/p", "/m/p/../p/lora:F16", "nothing"])
def test_no_other_path_is_taken_or_looked_at(query: str) -> None:
    with pytest.raises(ModelNotFound):
        named(wanted(("mine", query)), MODELS, FAKE)


def test_a_part_of_an_id_means_adapters_alone() -> None:
    models = {**MODELS, "p/lora-base": record("p/lora-base")}
    assert named(wanted(("mine", "lora")), models, FAKE) == wanted(("mine", "p/lora:F16"))
    with pytest.raises(ModelNotFound) as caught:
        named(wanted(("mine", "p/lorra")), models, FAKE)
    assert caught.value.data["suggestions"] == ["p/lora:F16"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (wanted(("mine", "a")), "no adapter"),
        (wanted(("mine", "other")), "for elsewhere models"),
        (wanted(("mine", "p/lora"), ("mine", "p/lora")), "same name"),
    ],
)
def test_what_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidParams, match=said):
        named(options, MODELS, FAKE)


def test_a_format_without_adapters() -> None:
    plain = FakeBackend()
    plain.adapters = None
    assert named({"context_length": 5}, MODELS, plain) == {"context_length": 5}
    with pytest.raises(Unsupported, match="not supported for fake models") as caught:
        named(wanted(("mine", "p/lora")), MODELS, plain)
    assert caught.value.data == {"capability": "adapters", "format": "fake"}


def test_their_weights_count() -> None:
    plain = Estimate(40, 1, 1, 1, 5, 1)
    options = named(wanted(("one", "p/lora:F16"), ("two", "p/lora")), MODELS, FAKE)
    assert with_weights(plain, options, FAKE, MODELS).weights_bytes == 54
    assert with_weights(plain, {}, FAKE, MODELS) is plain


def test_those_of_peft_count_in_float32_and_keep_a_model_together() -> None:
    made = adapter("half", "huggingface")
    half = replace(made, facts=replace(made.facts, weights_bytes=200, parameters=100))
    plain = Estimate(40, 1, 1, 1, 5, 1, spread=Spread(1, 0.0))
    counted = with_weights(plain, wanted(("one", "half")), huggingface.BACKEND, {"half": half})
    assert counted == replace(plain, weights_bytes=440, spread=None)


@pytest.mark.usefixtures("autojump_clock")
async def test_the_worker_is_told_where_they_lie_and_clients_are_not(tmp_path: Path) -> None:
    async with running(tmp_path, record("a"), adapter("lora")) as (world, begin):
        load = begin(
            world.manager.load,
            "a",
            load_options={"adapters": [{"name": "mine", "path_or_id": "/m/lora"}]},
        )
        while not world.host.workers:
            await world.manager.ping()
        spec = (await world.host.workers[0].heard("load"))["spec"]
        assert spec["adapters"] == [{"name": "mine", "path": "/m/lora"}]
        world.host.workers[0].ready()
        await load.over.wait()
        shown = load.value["load_options"]["adapters"]
        assert shown == [{"name": "mine", "path_or_id": "lora"}]
        assert load.value["devices"] == [{"device": "cpu", "bytes": 47}]
        # The same adapter by another of its names, and none named at all, are satisfied.
        for options in ({"adapters": [{"name": "mine", "path_or_id": "lora"}]}, {}):
            again = begin(world.manager.load, "a", load_options=options)
            await again.over.wait()
            assert again.error is None
        assert len(world.host.workers) == 1
