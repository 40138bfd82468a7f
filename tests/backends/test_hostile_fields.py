"""Every field of every header with what nobody expects in it, by tables.

An inspection answers with facts that make sense, or with `ModelInvalid` and a reason.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.api import Facts
from hybridd.backends.gguf.inspect import inspect as inspect_gguf
from hybridd.backends.registry import load_backends
from hybridd.core.naming import Unnamed, natural_name
from hybridd.core.packed import Packed
from hybridd.wire.errors import ModelInvalid
from tests import make_models as make
from tests.make_models import Array, Typed

HUGGINGFACE = load_backends()["huggingface"]
SOURCES = Path(inspect_gguf.__code__.co_filename).parents[1]


def outcome(inspect: Any, path: Path) -> Facts | str:
    """Facts that everything else can work with, or the reason why there are none."""
    try:
        facts: Facts = inspect(path)
    except ModelInvalid as error:
        reason = str(error.data["reason"])
        assert reason.strip()
        assert len(reason) < 600
        return reason
    assert Packed.of(facts.metadata).unpack() == dict(facts.metadata)
    json.dumps([facts.defaults, facts.name, facts.chat_template], allow_nan=False).encode()
    for name in ("context_length", "layers", "heads", "vocab_size", "embedding_length"):
        value = getattr(facts, name)
        assert value is None or (type(value) is int and 1 <= value <= 2**40), name
    assert all(type(n) is int and n >= 0 for n in facts.kv_heads or ())
    assert facts.weights_bytes >= 0
    assert facts.parameters is None or facts.parameters > 0
    for name in ("name", "base", "architecture", "quantization"):
        value = getattr(facts, name)
        assert value is None or (isinstance(value, str) and len(value) <= 600), name
    assert natural_name(Unnamed("k", "s", ("p", "r"), "m", True, facts.quantization, True)).id
    return facts


# ---------------------------------------------------------------- GGUF: metadata

VALUES: dict[str, Any] = {
    "zero": Typed(make.U32, 0),
    "negative": Typed(make.I32, -1),
    "negative 64": Typed(make.I64, -(2**63)),
    "huge": Typed(make.U64, 2**64 - 1),
    "byte": Typed(make.U8, 255),
    "small negative": Typed(make.I8, -128),
    "word": Typed(make.U16, 65535),
    "signed word": Typed(make.I16, -1),
    "float": 0.5,
    "double": Typed(make.F64, 1e308),
    "nan": Typed(make.F32, float("nan")),
    "infinite": Typed(make.F64, float("-inf")),
    "true": True,
    "text": "not what it should be",
    "empty text": "",
    "zeros": "\0" * 9,
    "no UTF-8": b"\xff\xfe\x80",
    "long text": "x" * 70_000,
    "no items": Array(make.U32, []),
    "numbers": Array(make.U32, [0, 1, 2**32 - 1]),
    "negatives": Array(make.I64, [-1, -(2**63)]),
    "nans": Array(make.F32, [float("nan"), float("inf")]),
    "texts": Array(make.STRING, ["", b"\xff", "x" * 3000]),
    "truths": Array(make.BOOL, [True, False]),
    "many": Array(make.U8, [7] * 5000),
}


def keys_read() -> list[str]:
    """Every key that the readers name, as they stand in their sources."""
    text = "".join(
        (SOURCES / "gguf" / f"{n}.py").read_text() for n in ("inspect", "card", "reader")
    )
    found = set(re.findall(r'"((?:general|tokenizer|split|clip|adapter)\.[a-z0-9_.]+)"', text))
    own = set(re.findall(r'(?:value|number|largest|head_dim)\("([a-z_.]+)"', text))
    found |= {f"llama.{key}" for key in own}
    found |= {"llama.attention.key_length", "llama.attention.value_length", "llama.pooling_type"}
    found |= {f"general.base_model.0.{key}" for key in ("name", "organization", "repo_url")}
    return sorted(found)


def test_the_table_has_the_keys() -> None:
    keys = keys_read()
    assert len(keys) > 40
    assert {"general.alignment", "llama.block_count", "general.file_type"} <= set(keys)


@pytest.mark.parametrize("key", keys_read())
def test_any_value_under_any_key(tmp_path: Path, key: str) -> None:
    usual = make.llama_metadata()
    wanted, what = usual.pop(key, None), {}
    for name, value in VALUES.items():
        header, data = make.gguf_header(usual, TENSORS)
        bent = with_pair(header, make._pair(key, value))
        path = tmp_path / "m.gguf"
        path.write_bytes(bent + bytes(data))
        what[name] = outcome(inspect_gguf, path)
    assert all(isinstance(made, Facts | str) for made in what.values())
    if key == "general.alignment":
        assert "alignment" in str(what["zero"])
        assert "alignment" in str(what["nan"])
        assert "alignment" in str(what["true"])
    elif key == "tokenizer.chat_template" and wanted is not None:
        assert "chat" not in what["numbers"].capabilities  # type: ignore[union-attr]


TENSORS = [make.Tensor("token_embd.weight", (64, 32)), make.Tensor("output.weight", (64, 32))]


def with_pair(header: bytes, pair: bytes) -> bytes:
    """A header with another pair at the front of its metadata."""
    (count,) = struct.unpack_from("<Q", header, 16)
    made = header[:16] + struct.pack("<Q", count + 1) + pair + header[24:]
    # The data's begin moves with it, and is padded anew.
    return made.rstrip(b"\0") + bytes(-len(made.rstrip(b"\0")) % 32 + 64)


PAIR = struct.pack("<Q", 1) + b"k"
RAW_PAIRS: dict[str, bytes] = {
    "an unknown type": PAIR + struct.pack("<I", 13) + bytes(8),
    "a huge type": PAIR + struct.pack("<I", 2**32 - 1) + bytes(8),
    "an array of arrays": PAIR + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 4, 0),
    "an array of an unknown type": PAIR + struct.pack("<IIQ", 9, 99, 1) + bytes(8),
    "a huge array": PAIR + struct.pack("<IIQ", 9, 4, 2**64 - 1),
    "a huge array of texts": PAIR + struct.pack("<IIQ", 9, 8, 2**63),
    "an array whose text is huge": PAIR + struct.pack("<IIQQ", 9, 8, 1, 2**64 - 1),
    "a huge text": PAIR + struct.pack("<IQ", 8, 2**64 - 1),
    "a text past the end": PAIR + struct.pack("<IQ", 8, 2**20),
    "a huge key": struct.pack("<Q", 2**64 - 1),
    "a key of 64 KiB and one": struct.pack("<Q", 65_536) + b"k" * 65_536 + struct.pack("<II", 4, 1),
    "a key twice": make._pair("general.architecture", "llama"),
    "a huge alignment": make._pair("general.alignment", Typed(make.U64, 2**63)),
    "an alignment of three": make._pair("general.alignment", 3),
}


@pytest.mark.parametrize("name", RAW_PAIRS)
def test_a_pair_that_cannot_be(tmp_path: Path, name: str) -> None:
    header, data = make.gguf_header(make.llama_metadata(), TENSORS)
    path = tmp_path / "m.gguf"
    path.write_bytes(with_pair(header, RAW_PAIRS[name]) + bytes(data))
    assert isinstance(outcome(inspect_gguf, path), str)


def test_odd_pairs_that_can_be(tmp_path: Path) -> None:
    for pair in (
        struct.pack("<Q", 0) + struct.pack("<II", 4, 1),
        struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 1),
        make._pair("\0", "\0"),
    ):
        header, data = make.gguf_header(make.llama_metadata(), TENSORS)
        path = tmp_path / "m.gguf"
        path.write_bytes(with_pair(header, pair) + bytes(data))
        assert isinstance(outcome(inspect_gguf, path), Facts)


# ---------------------------------------------------------------- GGUF: header and tensors

START = [b"GGUF", struct.pack("<I", 3), struct.pack("<Q", 0), struct.pack("<Q", 0)]
STARTS: dict[str, tuple[int, bytes]] = {
    "no magic": (0, b"GGUX"),
    "big-endian": (0, b"FUGG"),
    "the format before": (0, b"lmgg"),
    "zeros": (0, bytes(4)),
    "version 0": (1, bytes(4)),
    "version 1": (1, struct.pack("<I", 1)),
    "version 4": (1, struct.pack("<I", 4)),
    "a big-endian version": (1, struct.pack(">I", 3)),
    "the largest version": (1, b"\xff" * 4),
    "too many tensors": (2, struct.pack("<Q", 65_537)),
    "the most tensors": (2, b"\xff" * 8),
    "tensors that are not there": (2, struct.pack("<Q", 1)),
    "too many keys": (3, struct.pack("<Q", 16_385)),
    "the most keys": (3, b"\xff" * 8),
    "keys that are not there": (3, struct.pack("<Q", 1)),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_that_cannot_be(tmp_path: Path, name: str) -> None:
    at, value = STARTS[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(b"".join([*START[:at], value, *START[at + 1 :]]))
    assert isinstance(outcome(inspect_gguf, path), str)


def entry(
    name: bytes = b"t", length: int | None = None, rank: int | None = None,
    shape: tuple[int, ...] = (32,), kind: int = 0, at: int = 0,
) -> bytes:  # fmt: skip
    """One entry of a tensor table, as it is said."""
    made = struct.pack("<Q", len(name) if length is None else length) + name
    made += struct.pack("<I", len(shape) if rank is None else rank)
    return made + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, at)


ENTRIES: dict[str, tuple[list[bytes], str]] = {
    "a long name": ([entry(b"n" * 1025)], "name"),
    "a huge name": ([entry(length=2**64 - 1)], "name"),
    "a name past the end": ([entry(length=1000)], "truncated"),
    "five dimensions": ([entry(shape=(1,) * 5)], "dimensions"),
    "255 dimensions": ([entry(rank=255)], "dimensions"),
    "256 dimensions": ([entry(rank=256)], "dimensions"),
    "the most dimensions": ([entry(rank=2**32 - 1)], "dimensions"),
    "a huge dimension": ([entry(shape=(2**64 - 1,))], "elements"),
    "a product that overflows": ([entry(shape=(2**32, 2**32, 2**32, 2**32))], "elements"),
    "a huge dimension times none": ([entry(shape=(2**63, 0))], "elements"),
    "a type given up": ([entry(kind=4)], "type"),
    "an unknown type": ([entry(kind=1000)], "type"),
    "the largest type": ([entry(kind=2**32 - 1)], "type"),
    "rows of no whole blocks": ([entry(shape=(33,), kind=8)], "blocks"),
    "not aligned": ([entry(at=1)], "aligned"),
    "a name twice": ([entry(), entry(at=128)], "twice"),
    "data past the end": ([entry(at=2**63)], "truncated"),
    "the last offset": ([entry(at=2**64 - 32)], "truncated"),
    "cut in the middle": ([entry()[:-1]], "truncated"),
}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("before", [0, 3])
def test_an_entry_that_cannot_be(tmp_path: Path, name: str, before: int) -> None:
    entries, reason = ENTRIES[name]
    good = [entry(f"good{n}".encode(), at=n * 128) for n in range(before)]
    metadata = make.llama_metadata()
    raw = b"GGUF" + struct.pack("<IQQ", 3, len(entries) + before, len(metadata))
    raw += b"".join(make._pair(k, v) for k, v in metadata.items()) + b"".join([*good, *entries])
    padded = raw + (
        bytes(-len(raw) % 32 + 4096) if reason != "truncated" or "data" in name else b""
    )
    path = tmp_path / "m.gguf"
    path.write_bytes(padded)
    made = outcome(inspect_gguf, path)
    assert reason in (made if isinstance(made, str) else str(made.reason))


# ---------------------------------------------------------------- safetensors

GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
SAFETENSORS: dict[str, Any] = {
    "no object": [], "a number": 7, "an entry that is none": {"t": None}, "a list": {"t": [1]},
    "no dtype": {"t": {k: v for k, v in GOOD.items() if k != "dtype"}},
    "no shape": {"t": {k: v for k, v in GOOD.items() if k != "shape"}},
    "no offsets": {"t": {k: v for k, v in GOOD.items() if k != "data_offsets"}},
    **{
        f"{key} {value!r}"[:60]: {"t": {**GOOD, key: value}}
        for key, values in {
            "dtype": (None, 7, "", "F31", [], {}, "f32", True, "F32 ", "x" * 9999),
            "shape": (None, 4, "4", {}, [-1, -4], [2.0, 2], ["2", 2], [True, 4], [2**64, 0],
                      [[2, 2]], [2] * 17, [2**40, 2**40], [None], [1e999], [3, 2], []),
            "data_offsets": (None, 16, "0,16", {}, [], [0], [0, 8, 16], [16, 0], [-16, 0],
                             [0.0, 16.0], [0, "16"], [False, 16], [0, 2**64], [0, 15], [0, 17],
                             [4, 20], [2**60, 2**60 + 16], [0, None], [[0, 16]]),
        }.items()
        for value in values
    },
    "overlap": {"a": GOOD, "b": {**GOOD, "data_offsets": [8, 24]}},
    "a gap": {"a": GOOD, "b": {**GOOD, "data_offsets": [20, 36]}},
    "twice the same place": {"a": GOOD, "b": GOOD},
    "data past the end": {"a": {"dtype": "U8", "shape": [99], "data_offsets": [0, 99]}},
}  # fmt: skip


def huggingface(directory: Path, header: bytes, length: int | None = None) -> Path:
    """A directory with a safetensors file of this header and 16 bytes of data."""
    made = make.write_hf(directory / "m")
    size = struct.pack("<Q", len(header) if length is None else length)
    (made / "model.safetensors").write_bytes(size + header + bytes(16))
    return made


def is_refused(made: Facts | str) -> bool:
    return isinstance(made, str) or made.reason is not None


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_safetensors_header_that_cannot_be(tmp_path: Path, name: str) -> None:
    path = huggingface(tmp_path, json.dumps(SAFETENSORS[name]).encode())
    assert is_refused(outcome(HUGGINGFACE.inspect, path))


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"", 2**64 - 1), (b"", 2**63), (b"{}", 200 * 2**20), (b"{}", 1000), (b"", 0),
        (b"{", None), (b"\xff\xfe", None), (b"[" * 100_000, None),
        (b'{"a":' * 100_000, None),
        (b'{"t":{"dtype":"F32","shape":[2,2],"data_offsets":[0,1e5]}}', None),
        (b'{"t":{"dtype":"F32","dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}', None),
        (b'{"t":1,"t":2}', None),
        (b'{"t":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}', None),
        (b'{"t":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,16]}}', None),
    ],
)  # fmt: skip
def test_safetensors_bytes_that_cannot_be(
    tmp_path: Path, header: bytes, length: int | None
) -> None:
    assert is_refused(outcome(HUGGINGFACE.inspect, huggingface(tmp_path, header, length)))


@pytest.mark.parametrize("metadata", [None, 7, [], "x", {}, {"a": 1}, {"format": "pt", "b": None}])
def test_any_metadata_of_safetensors_is_passed_over(tmp_path: Path, metadata: Any) -> None:
    header = json.dumps({"__metadata__": metadata, "t": GOOD}).encode()
    made = outcome(HUGGINGFACE.inspect, huggingface(tmp_path, header))
    assert isinstance(made, Facts)
    assert made.parameters == 4


# ---------------------------------------------------------------- config.json

JSON = (
    None, True, False, 0, -1, 7, 2**31, 2**63, 2**64, 10**400, 0.5, -0.5, 1e308, float("inf"),
    float("nan"), "", "x", "\0", "\ud800", "x" * 5000, "../../x", [], {}, [[]], [None] * 300,
    ["a", 1, None], [2**63], [float("nan")], {"": None}, {"a": {"b": [{}]}}, {"x": [1e400]},
)  # fmt: skip


def config_keys() -> list[str]:
    """Every word in quotes in the readers that could be a key of the JSON files."""
    text = "".join(p.read_text() for p in sorted((SOURCES / "huggingface").glob("*.py")))
    return sorted(set(re.findall(r'"(_?[a-z][a-z0-9_]{2,40})"', text)))


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_any_value_under_any_key_of_the_json_files(tmp_path: Path, file: str) -> None:
    keys = config_keys()
    assert {"model_type", "architectures", "quantization_config", "hidden_size"} <= set(keys)
    made = make.write_hf(tmp_path / "m")
    path = made / file
    said = json.loads(path.read_text()) if path.exists() else {}
    inside = [k for k in ("quantization_config", "rope_scaling", "text_config") if file[0] == "c"]
    for key in keys:
        for value in JSON if file == "config.json" else JSON[::3]:
            path.write_text(json.dumps({**said, key: value}))
            outcome(HUGGINGFACE.inspect, made)
        for outer in inside:
            for value in JSON[::10]:
                path.write_text(json.dumps({**said, outer: {key: value}}))
                outcome(HUGGINGFACE.inspect, made)


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", "null", "[" * 100_000, '{"a":1,"a":2}', "\ufeff"]
)
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    made = make.write_hf(tmp_path / "m")
    (made / "config.json").write_text(text)
    assert is_refused(outcome(HUGGINGFACE.inspect, made))
