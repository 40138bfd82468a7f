"""From files to ids, and from what somebody types to an id."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.model import AVAILABLE, INVALID, Facts, ModelRecord
from hybridd.core.naming import Unnamed, assign, bare, family, natural_name, resolve, without_tag
from hybridd.wire.errors import ModelAmbiguous, ModelNotFound


def gguf(path: str, tag: str | None = "Q4_K_M", store: str = "local") -> Unnamed:
    """A GGUF file at `path` below its store's root."""
    *folders, name = path.split("/")
    return Unnamed(f"{store}/{path}", store, tuple(folders), name, True, tag, tagged=True)


def hf(path: str, store: str = "local") -> Unnamed:
    """A Hugging Face directory at `path` below its store's root."""
    *folders, name = path.split("/")
    return Unnamed(f"{store}/{path}", store, tuple(folders), name, False)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (gguf("TheBloke/Llama-2-7B-GGUF/llama-2-7b.Q4_K_M"), "TheBloke/Llama-2-7B-GGUF:Q4_K_M"),
        (gguf("deep/er/pub/repo/x"), "pub/repo:Q4_K_M"),
        (gguf("unsloth/Big-GGUF/UD-Q4_K_XL/Big-UD-Q4_K_XL"), "unsloth/Big-GGUF:Q4_K_M"),
        (gguf("unsloth/Big-GGUF/BF16/Big", "BF16"), "unsloth/Big-GGUF:BF16"),
        (gguf("tiny-Q4_K_M"), "tiny:Q4_K_M"),
        (gguf("tiny.q4_k_m"), "tiny:Q4_K_M"),
        (gguf("tiny-q4-k-m"), "tiny:Q4_K_M"),
        (gguf("tiny.fp16", "F16"), "tiny:F16"),
        (gguf("tiny-Q8_0"), "tiny-Q8_0:Q4_K_M"),  # the header is the truth
        (gguf("Q4_K_M"), "Q4_K_M:Q4_K_M"),
        (gguf("folder/tiny-Q4_K_M"), "tiny:Q4_K_M"),
        (gguf("broken", None), "broken"),
        (hf("meta-llama/Llama-3-8B"), "meta-llama/Llama-3-8B"),
        (hf("my-model"), "my-model"),
        (hf("a/b/c"), "b/c"),
        (hf("models--Qwen--Qwen3-8B/snapshots/0123abcd"), "Qwen/Qwen3-8B"),
        (gguf("models--o--r-GGUF/snapshots/0123/f", "Q8_0"), "o/r-GGUF:Q8_0"),
        (hf(os.fsdecode(b"gr\xf6\xdfe/m\xff")), "gr%F6%DFe/m%FF"),
        (Unnamed("k", "local", (), "parrot", True), "parrot"),
        (Unnamed("k", "demo", (), "x", False, fixed="hybridd/demo-hf"), "hybridd/demo-hf"),
    ],
)
def test_natural_names(found: Unnamed, expected: str) -> None:
    assert natural_name(found).id == expected


def test_publishers() -> None:
    assert natural_name(gguf("pub/repo/x")).publisher == "pub"
    assert natural_name(gguf("x")).publisher is None
    assert natural_name(hf("pub/name")).publisher == "pub"
    assert natural_name(hf("name")).publisher is None


def ids(*found: Unnamed, **kwargs: object) -> list[str]:
    names = assign(found, {}, **kwargs)
    return [names[f.key].id for f in found]


def test_equal_tags_in_one_repository() -> None:
    assert ids(gguf("p/r/a"), gguf("p/r/b"), gguf("p/r/c", "Q8_0")) == [
        "p/r:Q4_K_M+a",
        "p/r:Q4_K_M+b",
        "p/r:Q8_0",
    ]


def test_the_same_id_from_two_stores() -> None:
    assert ids(hf("p/n", "local"), hf("p/n", "hub")) == ["p/n", "p/n@hub"]
    assert ids(gguf("p/r/a"), gguf("p/r/a", store="lm")) == ["p/r:Q4_K_M", "p/r:Q4_K_M@lm"]


def test_what_still_collides_is_numbered() -> None:
    assert ids(gguf("x/tiny"), gguf("y/tiny"), gguf("z/tiny")) == [
        "tiny:Q4_K_M",
        "tiny:Q4_K_M~2",
        "tiny:Q4_K_M~3",
    ]
    assert ids(hf("a/p/n"), hf("b/p/n")) == ["p/n", "p/n~2"]


def test_a_name_stays_when_others_come() -> None:
    first = gguf("p/r/z")
    names = assign([first], {})
    later = assign([gguf("p/r/a"), first], names)
    assert later[first.key].id == "p/r:Q4_K_M"
    assert later["local/p/r/a"].id == "p/r:Q4_K_M+a"
    alone = assign([gguf("p/r/a")], later)
    assert alone["local/p/r/a"].id == "p/r:Q4_K_M+a"


def test_a_name_stays_while_the_file_is_unreadable_and_goes_when_it_lies() -> None:
    names = assign([gguf("x", "Q4_K_M")], {})
    broken = assign([gguf("x", None)], names)
    assert broken["local/x"].id == "x:Q4_K_M"
    again = assign([gguf("x", "Q4_K_M")], broken)
    assert again["local/x"].id == "x:Q4_K_M"
    other = assign([gguf("x", "Q8_0")], names)
    assert other["local/x"].id == "x:Q8_0"


folder = some.sampled_from(["p", "q", "Q4_K_M", "models--a--b", "snapshots", "ä", "\udcff", "a:b"])
listed = some.builds(
    Unnamed,
    key=some.uuids().map(str),
    store=some.sampled_from(["local", "hub"]),
    folders=some.lists(folder, max_size=4).map(tuple),
    stem=some.sampled_from(["a", "b", "A", "a-Q4_K_M", "a+b", "x~2", "\udcff%FF", "%FF"]),
    is_file=some.booleans(),
    tag=some.sampled_from(["Q4_K_M", "Q8_0", None]),
    tagged=some.booleans(),
)


@given(some.lists(listed, max_size=12), some.lists(listed, max_size=5), some.data())
def test_ids_are_unique_and_stay(
    before: list[Unnamed], arriving: list[Unnamed], data: some.DataObject
) -> None:
    names = assign(before, {})
    assert len({name.id for name in names.values()}) == len(before)
    staying = [found for found in before if data.draw(some.booleans())]
    mixed = data.draw(some.permutations(staying + arriving))
    later = assign(mixed, names)
    assert len({name.id for name in later.values()}) == len(mixed)
    for found in staying:
        assert later[found.key].id == names[found.key].id
    for name in later.values():
        assert name.id
        name.id.encode()


@given(some.lists(listed, max_size=8))
def test_names_do_not_depend_on_chance(found: list[Unnamed]) -> None:
    assert assign(found, {}) == assign(list(found), {})


@given(some.text(min_size=1, max_size=12), some.sampled_from(["Q4_K_M", "F16", "IQ4_XS"]))
def test_a_stem_is_never_emptied(stem: str, tag: str) -> None:
    assert without_tag(stem, tag)
    if not stem.upper().endswith(("P16", "F16", "_M", "_XS")):
        assert without_tag(f"{stem}-{tag.lower()}", tag) == stem.rstrip("-_.") or stem.rstrip(
            "-_."
        ) in ("", stem)


# ---------------------------------------------------------------- resolve


def catalog(*entries: str, **sizes: int) -> dict[str, ModelRecord]:
    """Records by id; `!id` is invalid, `id=alias` has an alias."""
    made = {}
    for entry in entries:
        text, _, alias = entry.partition("=")
        key = text.lstrip("!")
        facts = Facts("gguf", (), weights_bytes=sizes.get(key.rpartition(":")[2], 1))
        made[key] = ModelRecord(
            id=key,
            facts=facts,
            publisher=None,
            name=key,
            store="local",
            path=Path(key),
            locations=(),
            status=INVALID if text.startswith("!") else AVAILABLE,
            reason=None,
            modified_at=0.0,
            files=(),
            identity=(),
            aliases=(alias,) if alias else (),
        )
    return dict(sorted(made.items()))


LLAMAS = catalog(
    "bartowski/Llama-3-8B-GGUF:Q4_K_M",
    "bartowski/Llama-3-8B-GGUF:Q8_0",
    "bartowski/Llama-3.1-8B-GGUF:Q4_K_M",
    "meta/Llama-3-8B",
    "gemma-3-12b:Q4_K_M=g",
    "!broken",
    Q8_0=8,
    Q4_K_M=4,
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("bartowski/Llama-3-8B-GGUF:Q4_K_M", "bartowski/Llama-3-8B-GGUF:Q4_K_M"),
        ("g", "gemma-3-12b:Q4_K_M"),
        ("gemma-3-12b", "gemma-3-12b:Q4_K_M"),
        ("GEMMA-3-12B", "gemma-3-12b:Q4_K_M"),
        ("gemma", "gemma-3-12b:Q4_K_M"),
        ("gemma 12b", "gemma-3-12b:Q4_K_M"),
        (" gemma ", "gemma-3-12b:Q4_K_M"),
        ("bartowski/llama-3-8b-gguf", "bartowski/Llama-3-8B-GGUF:Q8_0"),
        ("llama-3.1", "bartowski/Llama-3.1-8B-GGUF:Q4_K_M"),
        ("llama 3 8b q8_0", "bartowski/Llama-3-8B-GGUF:Q8_0"),
        ("Llama-3-8B", "bartowski/Llama-3-8B-GGUF:Q8_0"),  # all builds of one model
        ("meta/Llama-3-8B", "meta/Llama-3-8B"),
        ("broken", "broken"),
    ],
)
def test_resolve(query: str, expected: str) -> None:
    assert resolve(query, LLAMAS) == expected


def test_a_loaded_build_comes_first_then_the_best_that_fits() -> None:
    query = "bartowski/Llama-3-8B-GGUF"
    small, large = f"{query}:Q4_K_M", f"{query}:Q8_0"
    assert resolve(query, LLAMAS, loaded_ids={small}) == small
    assert resolve(query, LLAMAS, fits=lambda key: key == small) == small
    assert resolve(query, LLAMAS, fits=lambda key: True) == large
    assert resolve(query, LLAMAS, fits=lambda key: False) == small
    assert resolve(query, LLAMAS, loaded_ids={small}, fits=lambda key: key == large) == small


def test_several_models_are_ambiguous() -> None:
    with pytest.raises(ModelAmbiguous) as caught:
        resolve("llama 8b", LLAMAS)
    assert caught.value.data["candidates"] == [
        "bartowski/Llama-3-8B-GGUF:Q4_K_M",
        "bartowski/Llama-3-8B-GGUF:Q8_0",
        "bartowski/Llama-3.1-8B-GGUF:Q4_K_M",
        "meta/Llama-3-8B",
    ]
    assert "say which" in caught.value.message


@pytest.mark.parametrize("query", ["gema-3-12b", "lama", "gem", "12", "", "///", "brok", "💥"])
def test_typos_and_parts_of_segments_only_suggest(query: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve(query, LLAMAS)
    assert "broken" not in caught.value.data["suggestions"]


def test_suggestions() -> None:
    with pytest.raises(ModelNotFound, match=r"did you mean gemma-3-12b:Q4_K_M\?") as caught:
        resolve("gema-3-12b", LLAMAS)
    assert caught.value.data["model"] == "gema-3-12b"
    assert caught.value.data["suggestions"][0] == "gemma-3-12b:Q4_K_M"
    with pytest.raises(ModelNotFound) as caught:
        resolve("x", {})
    assert caught.value.data["suggestions"] == []


def test_an_alias_goes_before_a_partial_match() -> None:
    models = catalog("a/one=two", "b/two")
    assert resolve("two", models) == "a/one"
    assert resolve("b/two", models) == "b/two"


def test_an_invalid_model_is_never_a_guess() -> None:
    models = catalog("!a/x:Q4_K_M", "b/x:Q8_0")
    assert resolve("x", models) == "b/x:Q8_0"
    assert resolve("a/x", models) == "a/x:Q4_K_M"  # its own name: the caller says what is wrong


@given(some.text(max_size=20), some.sets(some.text(min_size=1, max_size=20), max_size=6))
def test_any_query_has_one_of_three_answers(query: str, names: set[str]) -> None:
    models = catalog(*(name for name in names if name.strip("!").partition("=")[0]))
    try:
        named = {resolve(query, models)}
    except ModelNotFound as error:
        assert query not in models
        named = set(error.data["suggestions"])
    except ModelAmbiguous as error:
        named = set(error.data["candidates"])
    assert named <= set(models)
    for key in models:
        assert resolve(key, models) == key


@pytest.mark.parametrize(
    ("model_id", "without", "of_family"),
    [
        ("TheBloke/Foo-GGUF:Q4_K_M+x", "TheBloke/Foo-GGUF", "foo"),
        ("meta/Foo", "meta/Foo", "foo"),
        ("foo:Q8_0", "foo", "foo"),
        ("p/foo@hub", "p/foo@hub", "foo"),
        ("-gguf", "-gguf", "-gguf"),
    ],
)
def test_pieces_of_ids(model_id: str, without: str, of_family: str) -> None:
    assert bare(model_id) == without
    assert family(model_id) == of_family
