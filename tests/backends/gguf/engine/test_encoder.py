"""Embeddings and reranking through llama.cpp, on tiny models that make no sense but compute."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.engine.embedding import Input
from hybridd.backends.engine.passes import Aborted

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
from hybridd.backends.gguf.engine.encoder import GGUFEncoder, template_parts
from hybridd.backends.gguf.engine.generator import GGUFEngine
from hybridd.backends.gguf.engine.weights.llama import llama, start
from hybridd.backends.gguf.engine.weights.vocabulary import Vocabulary
from tests.make_gguf import HIDDEN, write_tiny
from tests.support_models import ask, ignore_progress, spec_for

TEXTS = ["the first of it", "and a second one, which is longer", "x"]
Make = Callable[..., GGUFEncoder]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Loads a tiny model and makes its encoder; frees both."""
    open_: list[Any] = []

    def opened(name: str, **options: Any) -> GGUFEncoder:
        start()
        path = write_tiny(name, tmp_path)
        params = llama.llama_model_default_params()
        model = llama.llama_model_load_from_file(os.fsencode(path), params)
        assert model
        encoder = GGUFEncoder(model, Vocabulary(llama.llama_model_get_vocab(model)), 1, **options)
        open_.append((encoder, model))
        return encoder

    yield opened
    for encoder, model in open_:
        encoder.close()
        encoder.close()
        llama.llama_model_free(model)


def go_on() -> bool:
    return False


def inputs(encoder: GGUFEncoder, texts: list[str] = TEXTS) -> list[Input]:
    return [encoder.tokenize(text) for text in texts]


def tokens_alone(encoder: GGUFEncoder, made: Input) -> list[list[float]]:
    """What the model computes for each token of one input, by a context without pooling."""
    params = llama.llama_context_default_params()
    params.embeddings, params.pooling_type = True, llama.LLAMA_POOLING_TYPE_NONE
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    context = llama.llama_init_from_model(encoder._model, params)
    batch = llama.llama_batch_init(512, 0, 1)
    batch.n_tokens = len(made.tokens)
    for at, token in enumerate(made.tokens):
        batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, at, 1
        batch.seq_id[at][0], batch.logits[at] = 0, 1
    assert llama.llama_decode(context, batch) == 0
    rows = [llama.llama_get_embeddings_ith(context, at)[:HIDDEN] for at in range(len(made.tokens))]
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    return rows


def mean(rows: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def test_a_bert_pools_by_its_own_type(make: Make) -> None:
    encoder = make("tiny-bert")
    assert (encoder.pooling, encoder.capabilities) == ("mean", ("embedding",))
    assert (encoder.dimensions, encoder.context_length) == (HIDDEN, 512)
    batch = inputs(encoder)
    for made, vector in zip(batch, encoder.vectors(batch, go_on), strict=True):
        assert vector == pytest.approx(mean(tokens_alone(encoder, made)), abs=1e-4)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3"])
def test_an_input_means_the_same_alone_and_in_a_batch(make: Make, name: str) -> None:
    encoder = make(name)
    batch = inputs(encoder)
    together = encoder.vectors(batch, go_on)
    for made, vector in zip(batch, together, strict=True):
        assert vector == pytest.approx(encoder.vectors([made], go_on)[0], abs=1e-4)
    assert math.dist(together[0], together[1]) > 0.1


def test_without_a_pooling_type_it_is_the_mean_of_the_tokens(make: Make) -> None:
    encoder = make("tiny-qwen3")
    assert encoder.pooling == "none"
    made = encoder.tokenize(TEXTS[1])
    expected = mean(tokens_alone(encoder, made))
    assert encoder.vectors([made], go_on)[0] == pytest.approx(expected, abs=1e-4)


def test_the_longest_input_and_as_many_as_a_batch_holds(make: Make) -> None:
    encoder = make("tiny-bert", ubatch_size=600)
    assert encoder.batch_tokens == 640
    longest = Input([2, *[140] * 510, 3])
    assert len(encoder.vectors([longest, Input([2, *[140] * 126, 3])], go_on)) == 2
    several = [Input([2, 140 + n, 3]) for n in range(encoder.batch_inputs)]
    assert len(encoder.vectors(several, go_on)) == encoder.batch_inputs


def test_texts_have_the_models_special_tokens_and_only_those(make: Make) -> None:
    encoder = make("tiny-bert")
    classifier, separator = 2, 3
    for text in ("the", "[CLS] [SEP]"):
        tokens = encoder.tokenize(text).tokens
        assert (tokens[0], tokens[-1]) == (classifier, separator)
        assert not {classifier, separator} & set(tokens[1:-1])
    assert encoder.tokenize("").tokens == [classifier, separator]
    assert make("tiny-qwen3").tokenize("").tokens == []


def test_a_pair_has_a_separator_after_each_text(make: Make) -> None:
    encoder = make("tiny-reranker")
    one, other = (encoder.tokenize(text).tokens for text in ("the first", "of it"))
    assert encoder.tokenize_pair("the first", "of it").tokens == [*one, *other[1:]]


def test_a_reranker_scores_pairs_alone_and_together(make: Make) -> None:
    encoder = make("tiny-reranker")
    assert (encoder.pooling, encoder.capabilities) == ("rank", ("reranking",))
    pairs = [encoder.tokenize_pair("what is it", text) for text in TEXTS]
    scores = encoder.scores(pairs, go_on)
    assert len(set(scores)) == 3
    assert scores == pytest.approx([encoder.scores([p], go_on)[0] for p in pairs], abs=1e-4)


def test_a_batch_ends_when_it_is_not_wanted_and_the_next_one_is_right(make: Make) -> None:
    encoder = make("tiny-qwen3")
    batch = inputs(encoder)
    expected = encoder.vectors(batch, go_on)
    with pytest.raises(Aborted):
        encoder.vectors(batch, lambda: True)
    assert encoder.vectors(batch, go_on) == expected


def test_the_parts_of_a_rerank_template() -> None:
    made = template_parts("<q>{query}</q> {document} {query}!{other}")
    assert "".join(text or f"({kind})" for kind, text in made) == (
        "<q>(query)</q> (document) (query)!{other}"
    )


@pytest.mark.parametrize(
    ("name", "kind", "request_fields"),
    [
        ("tiny-bert", "embed", {"input": ["the people", "could find water"]}),
        ("tiny-reranker", "rerank", {"query": "people", "documents": ["water", "the people"]}),
    ],
)
def test_the_engine_knows_by_the_header_what_a_model_is_for(
    tmp_path: Path, name: str, kind: str, request_fields: dict[str, Any]
) -> None:
    engine = GGUFEngine()
    facts = engine.load(spec_for(write_tiny(name, tmp_path), "gguf"), ignore_progress)
    assert facts["capabilities"] == [{"embed": "embedding", "rerank": "reranking"}[kind]]
    answer = ask(engine, kind, **request_fields)
    made = answer.result["embeddings" if kind == "embed" else "results"]
    assert len(made) == 2
    refused = ask(engine, prompt="the people", options={})
    assert refused.error["data"]["kind"] == "unsupported"
    engine.close()
