"""The packaged demo model as files: both formats hold the same model, and the corpus is honest.

No engine runs here. What the two engines make of the files is tested where the engines are, and
printed by etc/demo-model/check.py.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np  # noqa: TID253 - gguf, which this needs, imports it anyway
import numpy.typing as npt  # noqa: TID253
import pytest

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "hybridd" / "demo"
HF = DEMO / "demo-hf"
GGUF = DEMO / "demo-gguf" / "hybridd-demo-F16.gguf"

MAX_TOTAL_BYTES = 12 * 2**20

Array = npt.NDArray[np.generic]


def _load_corpus_module() -> ModuleType:
    # The scripts lie in a directory whose name is no package's.
    path = REPOSITORY / "etc" / "demo-model" / "corpus.py"
    spec = importlib.util.spec_from_file_location("demo_model_corpus", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


corpus_module = _load_corpus_module()


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(GGUF)


@pytest.fixture(scope="module")
def safetensors() -> dict[str, Array]:
    # By hand, so that the test needs no more than gguf: eight bytes of length, a JSON header, data.
    raw = (HF / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    tensors: dict[str, Array] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == "F16", name
            begin, end = (start + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(raw[begin:end], np.float16).reshape(entry["shape"])
    return tensors


@pytest.fixture(scope="module")
def corpus() -> Any:
    return corpus_module.load_corpus()


def _json(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((HF / name).read_text(encoding="utf-8"))
    return data


def _unpermute(rows: Array, heads: int) -> Array:
    """From llama.cpp's order of a head's rows, neighbouring pairs, to transformers' two halves."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def test_both_formats_together_are_small_enough_to_ship() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"demo-hf", "demo-gguf"}
    assert sum(path.stat().st_size for path in files) <= MAX_TOTAL_BYTES


def test_both_formats_have_two_to_three_million_parameters(
    reader: gguf.GGUFReader, safetensors: dict[str, Array]
) -> None:
    in_gguf = sum(int(tensor.n_elements) for tensor in reader.tensors)
    in_safetensors = sum(array.size for array in safetensors.values())
    assert in_gguf == in_safetensors
    assert 2_000_000 <= in_gguf <= 3_000_000


def test_both_formats_hold_the_same_weights(
    reader: gguf.GGUFReader, safetensors: dict[str, Array]
) -> None:
    config = _json("config.json")
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    per_layer = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in per_layer.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    tensors = {tensor.name: np.asarray(tensor.data) for tensor in reader.tensors}
    assert set(safetensors) == set(names)
    assert set(tensors) == set(names.values())

    for ours, theirs in names.items():
        expected, array = safetensors[ours], tensors[theirs]
        assert array.dtype == (np.float32 if expected.ndim == 1 else np.float16), theirs
        if ".attn_q." in theirs:
            array = _unpermute(array, config["num_attention_heads"])
        elif ".attn_k." in theirs:
            array = _unpermute(array, config["num_key_value_heads"])
        # Widening F16 to F32 is exact, so equal numbers mean equal weights.
        np.testing.assert_array_equal(array.astype(np.float32), expected.astype(np.float32), ours)


def test_both_formats_have_the_same_shape(reader: gguf.GGUFReader) -> None:
    config = _json("config.json")
    pairs = {
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.rope.dimension_count": config["head_dim"],
        "llama.vocab_size": config["vocab_size"],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.padding_token_id": config["pad_token_id"],
    }
    assert {key: reader.fields[key].contents() for key in pairs} == pairs
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "float16"
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_F16


def test_both_formats_have_the_same_tokenizer(reader: gguf.GGUFReader) -> None:
    model = _json("tokenizer.json")["model"]
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert {token: index for index, token in enumerate(tokens)} == model["vocab"]
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    assert merges == [" ".join(merge) for merge in model["merges"]]

    types = reader.fields["tokenizer.ggml.token_type"].contents()
    control = {t for t, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL}
    special = {token["content"] for token in _json("tokenizer.json")["added_tokens"]}
    assert control == special == {"<|bos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"}


def test_both_formats_have_the_same_chat_template(reader: gguf.GGUFReader) -> None:
    template = (HF / "chat_template.jinja").read_text(encoding="utf-8")
    assert reader.fields["tokenizer.chat_template"].contents() == template
    assert template.count("bos_token") == 1


def test_both_formats_are_greedy_unless_asked_otherwise(reader: gguf.GGUFReader) -> None:
    assert reader.fields["general.sampling.temp"].contents() == 0.0
    assert _json("generation_config.json")["do_sample"] is False


def test_every_file_is_readable_by_everyone() -> None:
    # Weights are saved for their owner alone by default; a package is installed for others too.
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in DEMO.rglob("*") if path.is_file())


def test_held_out_wordings_are_not_in_the_corpus(corpus: Any) -> None:
    held_out = corpus_module.load_held_out()
    questions = [question for topic in held_out for question in topic.questions]
    assert [question for question in questions if corpus.can_make(question)] == []


def test_at_least_ten_wordings_about_loading_are_held_out() -> None:
    (load,) = [topic for topic in corpus_module.load_held_out() if topic.name == "load"]
    assert load.must_contain == "hybridctl load"
    assert len({corpus_module.normalise(question) for question in load.questions}) >= 10


@pytest.mark.parametrize(
    "question",
    [
        "how do I load a model",
        "HOW DO I LOAD A MODEL??",
        "Please tell me, how can I fire up a Hugging Face model?",
        "Which models are loaded right now?",
        "What is 1000 + two?",
    ],
)
def test_the_corpus_recognises_what_it_can_make(corpus: Any, question: str) -> None:
    assert corpus.can_make(question)


@pytest.mark.parametrize("question", ["how do I load", "how do I load a model a model", "zebra"])
def test_the_corpus_does_not_claim_what_it_cannot_make(corpus: Any, question: str) -> None:
    assert not corpus.can_make(question)


def test_each_held_out_topic_is_one_of_the_corpus_with_that_answer(corpus: Any) -> None:
    answers = {topic.name: topic.answer for topic in corpus.topics}
    for topic in corpus_module.load_held_out():
        assert topic.must_contain in answers[topic.name]


def test_each_topic_has_ten_wordings_and_no_wording_has_two_answers(corpus: Any) -> None:
    seen: dict[str, str] = {}
    for topic in corpus.topics:
        assert len(set(topic.questions)) >= 10, topic.name
        for wording in topic.questions:
            assert seen.setdefault(wording, topic.name) == topic.name, wording


def test_a_slot_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.toml"
    text = corpus_module.CORPUS.read_text(encoding="utf-8")
    path.write_text(text.replace('"{how} load {m}",', '"{how} load {nosuch}",', 1), "utf-8")
    with pytest.raises(ValueError, match="no slot 'nosuch'"):
        corpus_module.load_corpus(path)
