"""Which models a list shows, and how it comes in pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.catalog.query import SLICE, Page, Query, decode_cursor, encode_cursor
from hybridd.core.model import INVALID, ModelRecord
from hybridd.wire.errors import InvalidParams
from tests.core.test_model import record


class Running(NamedTuple):
    status: str | None = None


def named(*ids: str) -> dict[str, ModelRecord]:
    return {id: replace(record(), id=id, aliases=()) for id in sorted(ids)}


def page(
    query: Query, models: Mapping[str, ModelRecord], running: Mapping[str, Running] | None = None
) -> Page[Running]:
    return Page(query, models, lambda model: model.available, (running or {}).get)


def shown(
    query: Query, models: Mapping[str, ModelRecord], running: Mapping[str, Running] | None = None
) -> list[str]:
    slices = page(query, models, running).slices()
    return [model.id for models in slices for model, _ in models]


def test_text_is_words_of_the_id_or_an_alias_in_any_case() -> None:
    models = named("p/Qwen3-8B:Q4_K_M", "p/Qwen3-4B:Q4_K_M", "p/Llama:Q8_0")
    models["p/Llama:Q8_0"] = replace(models["p/Llama:Q8_0"], aliases=("My-Qwen",))
    assert shown(Query("qwen"), models) == list(models)
    assert shown(Query("QWEN 8b"), models) == ["p/Qwen3-8B:Q4_K_M"]
    assert shown(Query("  "), models) == list(models)
    assert shown(Query("nothing"), models) == []


def test_format_and_what_cannot_be_loaded() -> None:
    models = named("a", "b", "c")
    models["b"] = replace(models["b"], facts=replace(models["b"].facts, format="echo"))
    models["c"] = replace(models["c"], status=INVALID, reason="truncated")
    assert shown(Query(), models) == ["a", "b"]
    assert shown(Query(unusable=True), models) == ["a", "b", "c"]
    assert shown(Query(format="echo"), models) == ["b"]


def test_loaded_goes_by_what_runs() -> None:
    models = named("a", "b", "c", "d")
    running = {"a": Running("loaded"), "b": Running("sleeping"), "c": Running("loading")}
    assert shown(Query(loaded=True), models, running) == ["a", "b"]
    assert shown(Query(loaded=False), models, running) == ["c", "d"]
    assert shown(Query(), models, running) == ["a", "b", "c", "d"]


def test_models_come_with_what_runs_of_them() -> None:
    (models,) = page(Query(), named("a", "b"), {"b": Running("queued")}).slices()
    assert [running for _, running in models] == [None, Running("queued")]


IDS = some.sets(some.text("ab:/é", min_size=1, max_size=4), max_size=12)


@given(IDS, some.integers(1, 5), some.booleans())
def test_pages_are_the_list_in_pieces(ids: set[str], limit: int, loaded: bool) -> None:
    models = named(*ids)
    running = {id: Running("loaded") for id in ids if "a" in id}
    listed: list[str] = []
    cursor: str | None = None
    while True:
        query = Query(loaded=loaded, limit=limit, after=decode_cursor(cursor))
        one = page(query, models, running)
        assert one.next_cursor is None
        ids_of_page = [model.id for models in one.slices() for model, _ in models]
        listed += ids_of_page
        cursor = one.next_cursor
        if cursor is None:
            break
        assert len(ids_of_page) == limit
    assert listed == shown(Query(loaded=loaded), models, running)


def test_a_page_goes_on_where_the_last_model_has_gone() -> None:
    models = named("a", "b", "c")
    after = decode_cursor(encode_cursor("b"))
    del models["b"]
    assert shown(Query(after=after), models) == ["c"]


def test_a_long_list_comes_in_slices_whether_or_not_models_are_asked_for() -> None:
    models = named(*(f"{number:04}" for number in range(2 * SLICE + 1)))
    assert [len(one) for one in page(Query(), models).slices()] == [SLICE, SLICE, 1]
    assert [len(one) for one in page(Query("none"), models).slices()] == [0, 0, 0]
    assert [len(one) for one in page(Query(limit=1), models).slices()] == [1]


@given(some.text(max_size=20).filter(lambda text: text.isprintable()))
def test_cursors_round_trip(id: str) -> None:
    assert decode_cursor(encode_cursor(id)) == id
    assert decode_cursor(None) == ""


@pytest.mark.parametrize("cursor", ["x", "é", "/w==", "\ud800", "a" * 4096 + "b"])
def test_what_is_no_cursor(cursor: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        decode_cursor(cursor)
    assert refused.value.data["field"] == "cursor"
