"""Encoder-decoders: what `generate` says is what transformers' own generation says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.api import Engine
from tests.support_models import ask, collect, ignore_progress, make_engine, spec_for

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tiny = pytest.importorskip("tests.make_huggingface")

PROMPTS = ["the model is loaded", "what is it", "one two three " * 5]
FAMILY = pytest.mark.parametrize("family", ["t5", "bart", "marian", "t5gemma", "pair"])


def opened(path: Path) -> Engine:
    engine = make_engine("huggingface")
    engine.load(spec_for(path, "huggingface"), ignore_progress)
    return engine


def own_words(path: Path, prompt: str, count: int) -> list[int]:
    """The tokens of a greedy generation by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(path).eval()
    made = model.generate(
        **tokenizer(prompt, return_tensors="pt", return_token_type_ids=False),
        do_sample=False,
        max_new_tokens=count,
        min_new_tokens=count,
    )
    return [int(token) for token in made[0]]


@FAMILY
def test_greedy_generation_is_that_of_transformers(tmp_path: Path, family: str) -> None:
    make: Callable[[Path], Path] = getattr(tiny, family)
    path = make(tmp_path / "m")
    engine = opened(path)
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "logprobs": 1}
    texts = []
    for prompt in PROMPTS:
        expected = own_words(path, prompt, 13)
        answer = ask(engine, prompt=prompt, options=options)
        said = [entry["id"] for entry in answer.logprobs]
        begin = expected.index(said[0], 1)
        assert begin <= 2, "behind the start and what it is made to say"
        assert expected[begin : begin + len(said)] == said
        assert len(said) >= 8 or answer.result["finish_reason"] == "stop"
        texts.append(tuple(said))
    assert len(set(texts)) > 1, "the prompt has to matter"


def test_requests_wait_for_each_other_and_a_cancelled_one_leaves_nothing(tmp_path: Path) -> None:
    engine = opened(tiny.t5(tmp_path / "m"))
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 6}
    alone = ask(engine, prompt=PROMPTS[0], options=options).text
    for number in (1, 2, 3):
        request: Any = {"id": number, "kind": "generate", "prompt": PROMPTS[0], "options": options}
        engine.submit(request)
        if number == 1:
            engine.step()
            engine.cancel(1)
    answer = collect(engine, 3)
    assert answer.text == alone
    assert answer.result["usage"]["cached_tokens"] == 0


def test_an_aborted_encoder_is_run_again(tmp_path: Path) -> None:
    engine = opened(tiny.t5(tmp_path / "m"))
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 6}
    alone = ask(engine, prompt=PROMPTS[1], options=options).text
    asked = iter([True])
    engine.set_interrupted(lambda _id: next(asked, False))
    assert ask(engine, prompt=PROMPTS[1], options=options).text == alone


def test_an_answer_does_not_begin_with_the_space_before_a_word(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    path = tiny.t5(tmp_path / "m")
    for file in path.glob("*token*"):
        file.unlink()
    words = [f"▁{word}" for word in dict.fromkeys(tiny.WORDS)]
    made = tokenizers.Tokenizer(
        tokenizers.models.Unigram(
            [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")] + [(w, -2.0) for w in words], 2
        )
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(path)
    water = tokenizer.convert_tokens_to_ids("▁water")
    options = {"temperature": 0, "max_tokens": 3, "logit_bias": {str(water): 1000}}
    answer = ask(opened(path), prompt="the water", options=options)
    assert answer.text == tokenizer.decode([water] * 3) == "water water water"
