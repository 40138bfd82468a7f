"""From requests to batches to vectors: what every encoder of an engine shares."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.api import Engine
from hybridd.backends.echo.engine.generator import EchoEngine
from hybridd.backends.engine import embedding
from hybridd.backends.engine.embedding import EncoderQueue, Input, to_json
from hybridd.backends.engine.not_finite import NotFinite
from hybridd.backends.engine.passes import Aborted
from tests.support_models import ask, collect, ignore_progress, spec_for


class Letters:
    """Counts letters: a token a letter, a dimension for each of the first four."""

    capabilities = ("embedding", "reranking")
    dimensions = 4
    context_length = 10
    batch_tokens = 16
    batch_inputs = 4

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.tokenized = 0

    def tokenize(self, text: str) -> Input:
        self.tokenized += 1
        return Input([ord(char) for char in text])

    def tokenize_pair(self, query: str, document: str) -> Input:
        return self.tokenize(query + document)

    def vectors(
        self, batch: Sequence[Input], abort: Callable[[], bool]
    ) -> Sequence[Sequence[float]]:
        if abort():
            raise Aborted
        self.batches.append([len(one.tokens) for one in batch])
        return [[float(one.tokens.count(ord(c))) for c in "abcd"] for one in batch]

    def scores(self, batch: Sequence[Input], abort: Callable[[], bool]) -> Sequence[float]:
        return [vector[0] for vector in self.vectors(batch, abort)]


class World:
    def __init__(self) -> None:
        self.encoder = Letters()
        self.interrupted: set[int] = set()
        self.queue = EncoderQueue(self.encoder, "letters", lambda id: id in self.interrupted)

    def ask(self, id: int = 1, kind: str = "embed", **request: Any) -> None:
        made: Any = {"id": id, "kind": kind, **request}
        assert self.queue.take(made) == []

    def refused(self, kind: str = "embed", **request: Any) -> dict[str, Any]:
        made: Any = {"id": 1, "kind": kind, **request}
        outputs = self.queue.take(made)
        while not outputs:
            outputs = self.queue.step()
        assert not self.queue.busy
        return outputs[0]["error"]["data"]  # type: ignore[no-any-return]

    def run(self) -> dict[int, dict[str, Any]]:
        ended: dict[int, dict[str, Any]] = {}
        while self.queue.busy:
            for output in self.queue.step():
                assert output["id"] not in ended
                ended[output["id"]] = output["done"]
        return ended


@pytest.fixture
def world() -> World:
    return World()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_of_single_precision_come_back_as_they_were(values: list[float]) -> None:
    back = json.loads(to_json(values))
    assert [struct.unpack("<f", struct.pack("<f", value))[0] for value in back] == values
    assert len(to_json(values)) <= 16 * len(values) + 2


def test_what_json_cannot_carry_is_no_vector() -> None:
    with pytest.raises(NotFinite):
        to_json([1.0, math.nan])


@pytest.mark.parametrize("kind", ["embed", "rerank"])
def test_numbers_that_are_none_fail_the_request_that_they_are_of(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    plain, ended = world.encoder.vectors, {}

    def vectors(batch: Sequence[Input], abort: Callable[[], bool]) -> Sequence[Sequence[float]]:
        return [
            [math.nan] * 4 if ord("!") in one.tokens else vector
            for one, vector in zip(batch, plain(batch, abort), strict=True)
        ]

    monkeypatch.setattr(world.encoder, "vectors", vectors)
    for id, texts in enumerate((["aa", "b"], ["ab", "!!", "ba"], ["bb"])):
        texts_of = {"embed": {"input": texts}, "rerank": {"query": "", "documents": texts}}
        world.ask(id, kind, **texts_of[kind])
    while world.queue.busy:
        for output in world.queue.step():
            assert output["id"] not in ended
            ended[output["id"]] = output
    assert ended[1]["error"]["data"]["reason"] == "not_finite"
    assert "done" in ended[0]
    assert "done" in ended[2]


def test_a_batch_that_fails_takes_only_its_own_requests_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, ended = world.encoder.vectors, {}

    def vectors(batch: Sequence[Input], abort: Callable[[], bool]) -> Sequence[Sequence[float]]:
        if any(len(one.tokens) > 8 for one in batch):
            raise MemoryError
        return plain(batch, abort)

    monkeypatch.setattr(world.encoder, "vectors", vectors)
    world.ask(1, input=["a" * 10])
    world.ask(2, input=["a"])
    while world.queue.busy:
        for output in world.queue.step():
            ended[output["id"]] = output
    assert ended[1]["error"]["data"]["reason"] == "out_of_memory"
    assert "done" in ended[2]


def test_vectors_come_in_the_order_of_their_texts_and_have_length_one(world: World) -> None:
    world.ask(input=["aab", "d", "aaabbbbccc"])
    done = world.run()[1]
    vectors = [json.loads(vector) for vector in done["embeddings"]]
    assert vectors[0] == pytest.approx([2 / math.sqrt(5), 1 / math.sqrt(5), 0, 0], abs=1e-9)
    assert vectors[1] == [0, 0, 0, 1]
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1, 1, 1])
    assert done["dimensions"] == 4
    assert done["usage"] == {"prompt_tokens": 14, "total_tokens": 14}


def test_a_truncated_vector_is_normalized_again(world: World) -> None:
    world.ask(1, input=["abbcc"], dimensions=2)
    world.ask(2, input=["abbcc"], dimensions=2, normalize=False)
    world.ask(3, input=["dd"], dimensions=1)
    ended = world.run()
    assert json.loads(ended[1]["embeddings"][0]) == pytest.approx(
        [1 / math.sqrt(5), 2 / math.sqrt(5)], abs=1e-9
    )
    assert ended[2]["embeddings"] == ["[1,2]"]
    assert ended[2]["dimensions"] == 2
    assert ended[3]["embeddings"] == ["[0]"], "nothing is left of it, and nothing is divided by"


def test_batches_hold_similar_lengths_within_their_budget(world: World) -> None:
    world.ask(input=["a" * n for n in (1, 8, 2, 8, 7, 2, 1, 4)])
    world.run()
    assert world.encoder.batches == [[8, 8], [7, 4], [2, 2, 1, 1]]


def test_requests_share_batches_and_take_turns(world: World) -> None:
    world.ask(1, input=["aa"] * 8)
    world.ask(2, input=["aaaa"])
    order: list[int] = []
    while world.queue.busy:
        order += [output["id"] for output in world.queue.step()]
    assert order == [2, 1], "the small one did not wait for the large one"
    assert world.encoder.batches == [[2, 2, 2, 2], [4, 2, 2, 2], [2]]


def test_too_long_a_text_is_refused_before_anything_is_computed(world: World) -> None:
    data = world.refused(input=["a", "a" * 11])
    assert data == {
        "kind": "context_exceeded",
        "prompt_tokens": 11,
        "context_length": 10,
        "index": 1,
    }
    assert world.refused("rerank", query="a" * 6, documents=["a" * 5])["prompt_tokens"] == 11
    assert world.encoder.batches == []


@pytest.mark.parametrize(
    ("kind", "request_", "field"),
    [
        ("embed", {"input": []}, "input"),
        ("embed", {"input": ["a", ""]}, "input"),
        ("embed", {"input": ["a"], "dimensions": 5}, "dimensions"),
        ("rerank", {"query": "", "documents": []}, "documents"),
        ("rerank", {"query": "", "documents": [""]}, "documents"),
    ],
)
def test_what_makes_no_sense_names_its_field(
    world: World, kind: str, request_: dict[str, Any], field: str
) -> None:
    data = world.refused(kind, **request_)
    assert (data["kind"], data["field"]) == ("invalid_params", field)


def test_more_than_a_frame_holds_is_refused_with_what_it_holds(world: World) -> None:
    most = embedding.MAX_RESULT_NUMBERS // 4
    message = world.queue.take({"id": 1, "kind": "embed", "input": ["a"] * (most + 1)})
    assert f"at most {most} texts" in message[0]["error"]["message"]
    assert world.encoder.tokenized == 0


def test_a_model_without_the_capability(world: World) -> None:
    world.encoder.capabilities = ("reranking",)  # type: ignore[assignment]
    assert world.refused(input=["a"])["capability"] == "embedding"


def test_rerank_puts_the_best_first_and_keeps_the_order_of_equals(world: World) -> None:
    world.ask(1, "rerank", query="x", documents=["b", "aa", "c", "aaa"])
    world.ask(2, "rerank", query="x", documents=["b", "aa", "c", "aaa"], top_n=2)
    ended = world.run()
    results = [(one["index"], one["score"]) for one in ended[1]["results"]]
    assert results == [(3, 3.0), (1, 2.0), (0, 0.0), (2, 0.0)]
    assert [one["index"] for one in ended[2]["results"]] == [3, 1]
    assert ended[1]["usage"]["prompt_tokens"] == 11


def test_texts_are_tokenized_in_parts_so_that_a_cancel_is_heard(world: World) -> None:
    world.encoder.context_length = 100_000
    world.ask(input=["a" * 40_000] * 4)
    assert world.queue.step() == []
    assert world.encoder.tokenized == 2
    world.queue.cancel(1)
    assert not world.queue.busy


def test_a_batch_goes_on_while_one_of_its_requests_is_wanted(world: World) -> None:
    world.ask(1, input=["aa"])
    world.ask(2, input=["aa"])
    world.interrupted = {1}
    assert set(world.run()) == {1, 2}
    world.ask(3, input=["aa"])
    world.interrupted = {3}
    world.queue.step()
    assert world.queue.step() == [], "it was aborted, and its cancel is on its way"
    world.queue.cancel(3)
    assert not world.queue.busy


# ---------------------------------------------------------------- the echo engine


def echo(directory: Path, **file: Any) -> Engine:
    path = directory / "model.echo"
    path.write_text(json.dumps(file))
    engine = EchoEngine()
    engine.load(spec_for(path, "echo"), ignore_progress)
    return engine


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_echo_vectors_are_near_where_words_are_the_same(tmp_path: Path) -> None:
    engine = echo(tmp_path, capabilities=["embedding", "reranking"])
    texts = ["load a model", "Load the model", "grass is green"]
    done = ask(engine, "embed", input=texts).result
    first, near, far = (json.loads(vector) for vector in done["embeddings"])
    assert len(first) == done["dimensions"] == 32
    assert cosine(first, near) > 0.5 > cosine(first, far)
    again = ask(engine, "embed", input=texts).result
    assert again == done
    ranked = ask(engine, "rerank", query="load a model", documents=texts[1:]).result
    assert ranked["results"][0] == {"index": 0, "score": round(2 / 3, 6)}


def test_echo_without_the_capability(tmp_path: Path) -> None:
    error = ask(echo(tmp_path), "embed", input=["a"]).error
    assert error["data"] == {"kind": "unsupported", "capability": "embedding", "format": "echo"}


def test_echo_generates_beside_embedding(tmp_path: Path) -> None:
    engine = echo(tmp_path, capabilities=["completion", "chat", "embedding"])
    embed: Any = {"id": 7, "kind": "embed", "input": ["a b"] * 20}
    engine.submit(embed)
    answer = ask(engine, prompt="one two")
    assert answer.text == "one two"
    engine.submit(embed)
    assert len(collect(engine, 7).result["embeddings"]) == 20
