"""GGUF headers: every fact, every refusal, and headers that somebody bent."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.gguf import BACKEND
from hybridd.backends.gguf import reader as reading
from hybridd.backends.gguf.inspect import inspect
from hybridd.backends.gguf.types import FILE_TYPES, TENSOR_TYPES
from hybridd.core.model import Facts
from hybridd.wire.errors import ModelInvalid
from tests.make_models import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I32,
    STRING,
    U8,
    U64,
    Array,
    Tensor,
    Typed,
    gguf_header,
    llama_metadata,
    llama_tensors,
    memory_directory,
    mutants,
    write_gguf,
    write_gguf_shards,
)


def reason_of(path: Path) -> str:
    """Why a file is refused, whichever way it is said."""
    try:
        facts = inspect(path)
    except ModelInvalid as error:
        return str(error.data["reason"])
    assert facts.reason is not None, "it was accepted"
    return facts.reason


@pytest.fixture
def made(tmp_path: Path) -> Any:
    def make(**metadata: Any) -> Facts:
        return inspect(write_gguf(tmp_path / "m.gguf", llama_metadata(**metadata)))

    return make


def test_the_tables_are_those_of_the_gguf_package() -> None:
    constants = pytest.importorskip("gguf.constants")
    for kind, (block, size) in constants.GGML_QUANT_SIZES.items():
        assert TENSOR_TYPES[kind.value] == (kind.name, block, size)
    for file_type in constants.LlamaFileType:
        if file_type.name != "GUESSED":
            plain = file_type.name.removeprefix("MOSTLY_").removeprefix("ALL_")
            assert FILE_TYPES[file_type.value] == plain.removesuffix("_MOE")


def test_facts_of_a_small_llama(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    facts = inspect(path)
    parameters = 64 * 256 + 256 + 2 * (256 * 256 + 256 * 512)
    weights = 64 * 210 + 256 * 4 + 2 * (256 + 512) * 144
    assert facts == Facts(
        format="gguf",
        files=(path,),
        size_bytes=path.stat().st_size,
        name="Tiny Llama",
        architecture="llama",
        parameters=parameters,
        quantization="Q4_K_M",
        bits_per_weight=round(weights * 8 / parameters, 3),
        context_length=2048,
        capabilities=("completion", "chat"),
        weights_bytes=weights,
        layers=2,
        heads=8,
        kv_heads=(2,),
        head_dim_k=32,
        head_dim_v=32,
        vocab_size=64,
        embedding_length=256,
        feed_forward_length=512,
        metadata=facts.metadata,
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
    )
    assert facts.metadata["llama.block_count"] == 2
    assert facts.metadata["tokenizer.ggml.tokens.count"] == 64
    assert "tokenizer.ggml.tokens" not in facts.metadata
    assert "tokenizer.chat_template" not in facts.metadata


def test_what_the_gguf_package_writes_is_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    writer.add_block_count(3)
    writer.add_context_length(512)
    writer.add_file_type(1)
    writer.add_token_list([f"token {n}" for n in range(1000)])
    writer.add_tokenizer_model("gpt2")
    writer.add_sampling_temp(0.6)
    writer.add_tensor("token_embd.weight", numpy.zeros((10, 64), dtype=numpy.float16))
    writer.add_tensor("output.weight", numpy.zeros((10, 64), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    facts = inspect(tmp_path / "w.gguf")
    assert facts.reason is None
    assert (facts.layers, facts.context_length, facts.vocab_size) == (3, 512, 1000)
    assert (facts.parameters, facts.weights_bytes) == (1280, 640 * 2 + 640 * 4)
    assert facts.defaults == {"temperature": 0.6}
    assert facts.quantization == "F16"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"tokenizer__chat_template": None}, ("completion",)),
        ({"tokenizer__chat_template": "{{ tools }}"}, ("completion", "chat", "tools")),
        ({"tokenizer__chat_template": "<think>"}, ("completion", "chat", "reasoning")),
        ({"llama__pooling_type": 4}, ("reranking",)),
        ({"llama__pooling_type": 1}, ("embedding",)),
        ({"llama__pooling_type": 0}, ("completion", "chat")),
        (
            {f"tokenizer__ggml__fim_{part}_token_id": 3 for part in ("pre", "suf", "mid")},
            ("completion", "chat", "infill"),
        ),
        ({"tokenizer__ggml__fim_pre_token_id": 3}, ("completion", "chat")),
    ],
)
def test_capabilities(made: Any, metadata: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert made(**metadata).capabilities == expected


def test_an_encoder_embeds(tmp_path: Path) -> None:
    metadata = llama_metadata(general__architecture="bert", bert__block_count=2)
    assert inspect(write_gguf(tmp_path / "b.gguf", metadata)).capabilities == ("embedding",)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"general__file_type": 30}, "IQ4_XS"),
        ({"general__file_type": 1024 + 7}, "Q8_0"),
        ({"general__file_type": 38}, "MXFP4"),
        ({"general__file_type": None}, "Q4_K"),  # the type that most bytes have
        ({"general__file_type": 999}, "Q4_K"),
        ({"general__file_type": "Q4"}, "Q4_K"),
    ],
)
def test_quantization(made: Any, metadata: dict[str, Any], expected: str) -> None:
    assert made(**metadata).quantization == expected


def test_heads_per_layer_and_named_head_sizes(made: Any) -> None:
    facts = made(
        llama__attention__head_count_kv=Array(U64, [2, 0]),
        llama__attention__key_length=192,
        llama__attention__value_length=128,
    )
    assert (facts.kv_heads, facts.head_dim_k, facts.head_dim_v) == ((2, 0), 192, 128)
    # (2 + 0) heads * (192 + 128) elements * 2048 cells * 2 bytes
    assert BACKEND.estimate(facts, {}).kv_cache_bytes == 2 * 320 * 2048 * 2


def test_a_recurrent_model_has_no_growing_cache(made: Any) -> None:
    facts = made(
        llama__attention__head_count=None,
        llama__attention__head_count_kv=None,
        llama__ssm__state_size=16,
    )
    assert facts.kv_heads == (0,)
    assert BACKEND.estimate(facts, {}).kv_cache_bytes == 0


def test_defaults_in_range_only(made: Any) -> None:
    facts = made(
        general__sampling__temp=Typed(F32, 0.7),
        general__sampling__top_k=Typed(I32, 20),
        general__sampling__top_p=Typed(F32, 7.0),
        general__sampling__min_p=Typed(F32, float("nan")),
        general__sampling__penalty_repeat=Typed(F64, 1.05),
    )
    assert facts.defaults == {"temperature": 0.7, "top_k": 20, "repeat_penalty": 1.05}


def test_base_model(made: Any) -> None:
    said = {"general__base_model__0__name": "Big", "general__base_model__0__organization": "Org"}
    assert made(general__name="Big", **said).base == "Org/Big"
    assert made(general__name=None, **said).base == "Org/Big"
    assert made(general__name="Tuned", **said).base is None
    url = "https://hub.example/Org/Big-7B"
    facts = made(general__name="Big 7B", general__base_model__0__repo_url=url)
    assert facts.base == "Org/Big-7B"


def test_version_2_and_other_alignments(tmp_path: Path) -> None:
    assert inspect(write_gguf(tmp_path / "2.gguf", version=2)).reason is None
    metadata = llama_metadata(general__alignment=64)
    assert inspect(write_gguf(tmp_path / "a.gguf", metadata)).reason is None


def test_metadata_is_json_without_nan_and_odd_text(made: Any) -> None:
    facts = made(
        x__nan=Typed(F32, float("nan")),
        x__bytes=b"\xff\xfe",
        x__long="a" * 5000,
        x__list=Array(I32, [1, 2]),
        x__nothing=Array(STRING, []),
        x__true=Typed(BOOL, True),
    )
    assert "x.nan" not in facts.metadata
    assert "x.long" not in facts.metadata
    assert facts.metadata["x.bytes"] == "\ufffd\ufffd"
    assert facts.metadata["x.list"] == [1, 2]
    assert facts.metadata["x.true"] is True


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("metadata", "tensors", "reason"),
    [
        ({"general__type": "mmproj"}, None, "mmproj"),
        ({"general__architecture": "clip"}, None, "mmproj"),
        ({"general__type": "adapter"}, None, "LoRA"),
        ({}, [Tensor("blk.0.attn_q.weight.lora_a", (256, 8))], "LoRA"),
        ({"general__type": "imatrix"}, None, "imatrix"),
        ({}, [], "only a vocabulary"),
        ({"general__architecture": None}, None, "no architecture"),
        (
            {"tokenizer__ggml__model": None, "tokenizer__ggml__tokens": None},
            None,
            "without a tokenizer",
        ),
        ({"tokenizer__ggml__model": "none"}, None, "without a tokenizer"),
        ({"general__architecture": "llada"}, None, "diffusion language model"),
        ({"general__architecture": "t5"}, None, "encoder-decoder"),
        ({"general__architecture": "eagle3"}, None, "drafts for one certain model"),
        ({"general__architecture": "qwen3tts"}, None, "speech"),
    ],
)
def test_what_is_no_model(
    tmp_path: Path, metadata: dict[str, Any], tensors: list[Tensor] | None, reason: str
) -> None:
    assert reason in reason_of(write_gguf(tmp_path / "m.gguf", llama_metadata(**metadata), tensors))


def test_what_writes_no_text_may_make_vectors(tmp_path: Path) -> None:
    said = {"general__architecture": "llada", "llada__pooling_type": 1}
    facts = inspect(write_gguf(tmp_path / "m.gguf", llama_metadata(**said)))
    assert facts.reason is None
    assert facts.capabilities == ("embedding",)


def test_cut_short_anywhere(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for size in [*range(0, 2000, 7), *range(2000, len(whole), 1501), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert reason_of(path).startswith("truncated"), size
    path.write_bytes(whole)
    assert inspect(path).reason is None


def test_one_byte_short_says_what_is_missing(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", cut=1)
    size = path.stat().st_size
    assert reason_of(path) == f"truncated: the tensors need {size + 1} bytes, the file has {size}"
    assert inspect(path).quantization == "Q4_K_M"


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"FUGG" + bytes(60), "big-endian"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(60), "big-endian"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(60), "version 1"),
        (b"GGUF" + struct.pack("<I", 4) + bytes(60), "version 4"),
        (b"lmgg" + bytes(60), "came before GGUF"),
        (b"PK\x03\x04" + bytes(60), "no GGUF file"),
        (bytes(64), "zeros"),
        (b"", "empty"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 1) + bytes(60), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**63) + bytes(60), "keys"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**64 - 1) + bytes(60), "key claims"),
    ],
)
def test_bad_starts(tmp_path: Path, start: bytes, reason: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(start)
    assert reason in reason_of(path)


def _pair(key: bytes, kind: int, rest: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + rest


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (_pair(b"k", STRING, struct.pack("<Q", 2**64 - 1)), "truncated"),
        (_pair(b"k", 77, bytes(8)), "unknown type 77"),
        (_pair(b"k", ARRAY, struct.pack("<IQ", 77, 1)), "unusable type 77"),
        (_pair(b"k", ARRAY, struct.pack("<IQ", ARRAY, 1)), "unusable type 9"),
        (_pair(b"k", ARRAY, struct.pack("<IQ", U8, 2**63)), "truncated"),
        (_pair(b"k", ARRAY, struct.pack("<IQ", STRING, 2**63)), "strings"),
        (
            _pair(b"k", ARRAY, struct.pack("<IQQ", STRING, 1500, 2**64 - 9) + bytes(12000)),
            "truncated",
        ),
        (
            _pair(b"k", ARRAY, struct.pack("<IQQ", STRING, 1500, 2**62) + bytes(12000)),
            "truncated",
        ),
    ],
)
def test_lengths_that_lie(tmp_path: Path, pair: bytes, reason: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair)
    assert reason in reason_of(path)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([Tensor("a", (100,), "Q4_K")], "whole blocks"),
        ([Tensor("a", (256,)), Tensor("a", (256,))], "occurs twice"),
    ],
)
def test_tensors_that_cannot_be(tmp_path: Path, tensors: list[Tensor], reason: str) -> None:
    assert reason in reason_of(write_gguf(tmp_path / "m.gguf", tensors=tensors))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (struct.pack("<I", 5), "5 dimensions"),
        (struct.pack("<IQIQ", 1, 32, 4, 0), "type 4"),
        (struct.pack("<IQIQ", 1, 32, 250, 0), "type 250"),
        (struct.pack("<IQIQ", 1, 2**63, 0, 0), "elements"),
        (struct.pack("<IQQQQIQ", 4, 2**63, 2**63, 2**63, 2**63, 0, 0), "elements"),
        (struct.pack("<IQIQ", 1, 32, 0, 7), "not aligned"),
        (struct.pack("<IQIQ", 1, 32, 0, 2**62), "truncated"),
    ],
)
def test_tensor_entries_that_lie(tmp_path: Path, entry: bytes, reason: str) -> None:
    path = tmp_path / "m.gguf"
    architecture = _pair(b"general.architecture", STRING, struct.pack("<Q", 1) + b"a")
    start = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + architecture + struct.pack("<Q", 1) + b"t"
    path.write_bytes(start + entry + bytes(200))
    assert reason in reason_of(path)


def test_a_key_twice_and_a_silly_alignment(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    pair = _pair(b"k", U8, b"\1")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pair + pair)
    assert "occurs twice" in reason_of(path)
    for alignment in (0, 3, 2**31):
        metadata = llama_metadata(x__alignment=1)
        header, _ = gguf_header(metadata, [])
        path.write_bytes(
            header.replace(
                _pair(b"x.alignment", 4, struct.pack("<I", 1)),
                _pair(b"general.alignment", 4, struct.pack("<I", alignment)),
            )
        )
        assert "alignment" in reason_of(path)


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    (tmp_path / "folder.gguf").mkdir()
    assert "no regular file" in reason_of(tmp_path / "fifo.gguf")
    assert "no regular file" in reason_of(tmp_path / "folder.gguf")
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "none.gguf")


# ---------------------------------------------------------------- shards


def test_shards_are_one_model(tmp_path: Path) -> None:
    paths = write_gguf_shards(tmp_path / "big-Q4_K_M", 3)
    facts, single = inspect(paths[0]), inspect(write_gguf(tmp_path / "one.gguf"))
    assert facts.reason is None
    assert facts.files == tuple(paths)
    assert facts.parameters == single.parameters
    assert facts.weights_bytes == single.weights_bytes
    assert facts.size_bytes == sum(path.stat().st_size for path in paths)


def test_missing_and_strange_shards(tmp_path: Path) -> None:
    paths = write_gguf_shards(tmp_path / "big", 3)
    saved = paths[2].read_bytes()
    paths[2].unlink()
    assert reason_of(paths[0]) == "incomplete: shard 3 of 3 missing"
    paths[2].write_bytes(saved[:-1])
    assert "big-00003-of-00003.gguf is truncated" in reason_of(paths[0])
    paths[2].write_bytes(paths[1].read_bytes())
    assert "out of its place" in reason_of(paths[0])
    write_gguf(paths[2])
    assert "1 shards by its header" in reason_of(paths[0])
    paths[0].unlink()
    paths[2].unlink()
    assert reason_of(paths[1]) == "incomplete: shards 1, 3 of 3 missing"
    huge = write_gguf(tmp_path / "x-00001-of-99999.gguf")
    assert "99999 shards" in reason_of(huge)


# ---------------------------------------------------------------- hostile and large


@pytest.fixture
def in_memory() -> Iterator[Path]:
    with memory_directory() as directory:
        yield Path(directory)


def test_mutants_raise_model_invalid_only(in_memory: Path) -> None:
    header, data = gguf_header(llama_metadata(), llama_tensors())
    whole = header + bytes(64)
    path = in_memory / "m.gguf"
    refused = 0
    slowest = 0.0
    for mutant in mutants(whole, len(header), 5000, seed=1):
        path.write_bytes(mutant)
        os.truncate(path, len(mutant) + data)
        started = time.perf_counter()
        try:
            facts = inspect(path)
        except ModelInvalid as error:
            refused += bool(error.data["reason"])
        else:
            BACKEND.estimate(facts, {})
        slowest = max(slowest, time.perf_counter() - started)
    assert refused > 1000
    print(f"slowest of 5000: {slowest * 1000:.1f} ms")


def test_a_large_vocabulary_is_stepped_over(tmp_path: Path) -> None:
    tokens = Array(STRING, [f"token{n}" for n in range(152_000)])
    path = write_gguf(
        tmp_path / "m.gguf",
        llama_metadata(tokenizer__ggml__tokens=tokens, tokenizer__ggml__merges=tokens),
    )
    tracemalloc.start()
    try:
        facts = inspect(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert facts.vocab_size == 152_000
    assert facts.reason is None
    assert peak < 8 * 2**20


def test_a_sparse_terabyte_of_empty_strings_ends_soon(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    claimed = _pair(b"k", ARRAY, struct.pack("<IQ", STRING, 10**10))
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + claimed)
    os.truncate(path, 2**40)
    assert "strings" in reason_of(path)


def test_strings_are_stepped_over_across_every_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a buffer of a few bytes every field falls on its edge once."""
    names = [f"{n}" * (n % 19) for n in range(1500)]
    path = write_gguf(
        tmp_path / "m.gguf", llama_metadata(tokenizer__ggml__tokens=Array(STRING, names))
    )
    expected = inspect(path)
    for size in (9, 16, 31, 64, 1000):
        monkeypatch.setattr(reading, "_READ", size)
        monkeypatch.setattr(reading, "_FIRST_READ", size)
        assert inspect(path) == expected
