"""The load option `quantization` where ids name the build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridd.core.model import ModelRecord
from hybridd.serving.options import builds
from hybridd.wire.errors import InvalidParams
from tests.serving.support import FakeBackend, record, running

pytestmark = pytest.mark.usefixtures("autojump_clock")


def build(id: str, quantization: str, **more: Any) -> ModelRecord:
    made = record(id, **more)
    return replace(made, facts=replace(made.facts, quantization=quantization))


SMALL, LARGE = build("p/x:Q4_K_M", "Q4_K_M"), build("p/x:Q8_0", "Q8_0")
RENAMED = build("p/x:UD-Q6_K", "Q6_K")
BROKEN = build("p/x:F16", "F16", status="invalid", reason="truncated")
PLAIN = build("demo", "F16")
MODELS = {one.id: one for one in (SMALL, LARGE, RENAMED, BROKEN, PLAIN)}
BACKENDS: dict[str, Any] = {"fake": FakeBackend()}


def chosen(query: str, found: ModelRecord, quantization: str | None) -> str:
    options = {"quantization": quantization}
    return builds.chosen(found, query, options, BACKENDS, MODELS).id


@pytest.mark.parametrize(
    ("query", "found", "quantization", "meant"),
    [
        ("p/x", SMALL, "Q8_0", "p/x:Q8_0"),
        ("x", SMALL, "q8_0", "p/x:Q8_0"),
        ("p/x", LARGE, "Q8_0", "p/x:Q8_0"),
        ("p/x:Q8_0", LARGE, "q8_0", "p/x:Q8_0"),
        ("p/x", SMALL, "ud-q6_k", "p/x:UD-Q6_K"),
        ("p/x", SMALL, "Q6_K", "p/x:UD-Q6_K"),
        ("p/x", SMALL, None, "p/x:Q4_K_M"),
        ("p/x", SMALL, "auto", "p/x:Q4_K_M"),
        ("demo", PLAIN, "F16", "demo"),
    ],
)
def test_the_build_that_is_meant(
    query: str, found: ModelRecord, quantization: str | None, meant: str
) -> None:
    assert chosen(query, found, quantization) == meant


@pytest.mark.parametrize(
    ("query", "found", "quantization", "said"),
    [
        ("p/x", SMALL, "int8", "no build int8; there is Q4_K_M, Q6_K, Q8_0$"),
        ("p/x", SMALL, "F16", "no build F16"),
        ("p/x:Q4_K_M", SMALL, "Q8_0", "two builds"),
        ("demo", PLAIN, "Q8_0", "there is F16"),
    ],
)
def test_no_other_is_taken(query: str, found: ModelRecord, quantization: str, said: str) -> None:
    with pytest.raises(InvalidParams, match=said):
        chosen(query, found, quantization)


def test_where_the_engine_quantizes_it_stays_an_option() -> None:
    engine = FakeBackend()
    engine.tagged = False
    asked, engines = {"quantization": "int8"}, {"fake": engine}
    assert builds.chosen(SMALL, "p/x", asked, engines, MODELS) is SMALL
    assert builds.checked(asked, SMALL, engines) == asked
    assert builds.checked({**asked, "threads": 1}, SMALL, BACKENDS) == {"threads": 1}


async def test_a_load_takes_the_build_and_no_second_one_reloads_it(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, LARGE, room=200) as (world, begin):
        for _ in range(2):
            load = begin(world.manager.load, "p/x", load_options={"quantization": "Q8_0"})
            if not world.host.workers:
                (await world.host.worker(0)).ready()
            await load.over.wait()
            assert load.value["id"] == "p/x:Q8_0"
        assert len(world.host.workers) == 1
        for wrong in ({"quantization": "Q8_0"}, {"quantization": "Q2_K"}):
            with pytest.raises(InvalidParams):
                await world.manager.configure("p/x:Q4_K_M", {"load_options": wrong})
        load = begin(world.manager.load, "p/x", load_options={"quantization": "q4_k_m"})
        (await world.host.worker(1)).ready()
        await load.over.wait()
        assert set(world.manager.loaded_models) == {"p/x:Q4_K_M", "p/x:Q8_0"}
