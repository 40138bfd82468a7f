"""The weights of a Hugging Face directory: which files, how many parameters, how stored.

Reads the index and every shard's header; what is missing or unsafe is said as a reason. How a
quantization packs its elements is known here, so that parameters are counted as the model has
them and not as the file stores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bounded import invalid, names_in, read_json, whole
from .config import part
from .safetensors import DTYPE_BITS, Tensors, read_tensors

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# The largest published models have under 200 shards; an index of 100,000 tensors has 10 MiB.
MAX_SHARDS = 1024
MAX_INDEX_BYTES = 16 * 1024 * 1024
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# Pickles that lie beside weights: what a trainer keeps of itself.
_NO_WEIGHTS = frozenset({"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"})
_TORCH_NAMES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

_QUANTIZATION_NAMES = {"F16": "F16", "BF16": "BF16", "F32": "F32", "F64": "F64"}
_EIGHT_BIT_FLOATS = ("F8_E5M2", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
# What a quantization keeps beside the weights themselves: not parameters of the model.
_SCALES = (
    ".qzeros",
    ".scales",
    ".g_idx",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_zero_point",
    ".weight_shape",
    ".input_scale",
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    ".SCB",
    "_scales",
)


@dataclass(slots=True)
class Weights:
    """What the weight files say together.

    Attributes:
        files: The safetensors files, in the order of their names.
        size_bytes: Sum of their sizes.
        parameters: Elements of the model's weights, unpacked.
        bytes_by_dtype: Data bytes by dtype.
        embedding_bytes: Those of the token embedding, which quantization at load leaves alone.
        quantization: The usual name of how most of them are stored.
        pickled: They are pickles, of which only the sizes are known here.
    """

    files: tuple[Path, ...]
    size_bytes: int = 0
    parameters: int = 0
    bytes_by_dtype: dict[str, int] = field(default_factory=dict)
    embedding_bytes: int = 0
    quantization: str | None = None
    pickled: bool = False

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(self.bytes_by_dtype.values())


def read_weights(path: Path, config: Mapping[str, Any]) -> Weights:
    """Read the headers of all weights in the directory `path`.

    Raises:
        ModelInvalid: No weights, a shard missing, a bad header.
        OSError: A file went away or cannot be read.
    """
    files = _files(path)
    if not files[0].name.endswith(".safetensors"):
        return _pickled(files, config)
    made = Weights(files)
    quantized = part(config, "quantization_config", "compression_config")
    packed = _packing(quantized)
    seen: set[str] = set()
    for file in files:
        tensors = read_tensors(file)
        twice = seen & tensors.shapes.keys()
        if twice:
            raise invalid(f"the tensor {min(twice)[:80]!r} is in two shards")
        seen |= tensors.shapes.keys()
        _add(made, tensors, packed)
    made.quantization = _name(quantized, made.bytes_by_dtype)
    return made


def _files(path: Path) -> tuple[Path, ...]:
    names, nowhere = names_in(path)
    if SINGLE in names:
        return (path / SINGLE,)
    if INDEX in names:
        return _indexed(path, names)
    found = sorted(name for name in names if name.endswith(".safetensors"))
    found = [name for name in found if not name.startswith("adapter_")]
    if len(found) == 1:
        return (path / found[0],)
    if found:
        raise invalid(f"incomplete: {len(found)} safetensors files, but no {INDEX}")
    waiting = sorted(name for name in nowhere if name.endswith((".safetensors", *PICKLES)))
    if waiting:
        raise invalid(f"incomplete: {waiting[0]} is a link to a file that is not there")
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles:
        return tuple(path / name for name in _pickles(path, names, pickles))
    raise invalid("no weights: the directory has a config.json but no safetensors file")


def _pickles(path: Path, names: set[str], found: list[str]) -> list[str]:
    """The pickles that are the weights: what transformers looks for, else the only one there is."""
    if PICKLE_INDEX in names:
        return [file.name for file in _indexed(path, names, PICKLE_INDEX, ".bin")]
    if PICKLE in found:
        return [PICKLE]
    weights = [name for name in found if name not in _NO_WEIGHTS]
    if len(weights) != 1:
        raise invalid(f"the weights are pickles ({found[0]} and others), which are not known here")
    return weights


def _pickled(files: tuple[Path, ...], config: Mapping[str, Any]) -> Weights:
    """What can be said of pickles without opening them."""
    size = sum(file.stat().st_size for file in files)
    said = config.get("dtype", config.get("torch_dtype"))
    name = _TORCH_NAMES.get(said if isinstance(said, str) else "", "F32")
    return Weights(
        files,
        size_bytes=size,
        parameters=size * 8 // DTYPE_BITS[name],
        bytes_by_dtype={name: size},
        quantization=name,
        pickled=True,
    )


def _indexed(
    path: Path, names: set[str], index: str = INDEX, suffix: str = ".safetensors"
) -> tuple[Path, ...]:
    mapped = read_json(path / index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise invalid(f"{index} has no weight_map")
    wanted = set()
    for file in mapped.values():
        if not isinstance(file, str) or "/" in file or not file.endswith(suffix):
            raise invalid(f"{index} names something else than {suffix[1:]} files beside it")
        wanted.add(file)
    if len(wanted) > MAX_SHARDS:
        raise invalid(f"{index} names {len(wanted)} shards; at most {MAX_SHARDS} are read")
    missing = sorted(wanted - names)
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise invalid(f"incomplete: {len(missing)} of {len(wanted)} shards missing ({shown})")
    return tuple(path / name for name in sorted(wanted))


def _add(made: Weights, tensors: Tensors, packed: tuple[str, int] | None) -> None:
    made.size_bytes += tensors.size
    for dtype, size in tensors.bytes_by_dtype.items():
        made.bytes_by_dtype[dtype] = made.bytes_by_dtype.get(dtype, 0) + size
    for name, (dtype, shape) in tensors.shapes.items():
        elements = 1
        for n in shape:
            elements *= n
        bits = DTYPE_BITS[dtype]
        if name.endswith(("embed_tokens.weight", "wte.weight", "word_embeddings.weight")):
            made.embedding_bytes += elements * bits // 8
        if packed is None:
            made.parameters += elements
        elif ".quant_state." in name or name.endswith(_SCALES):
            continue
        elif dtype == packed[0]:
            made.parameters += elements * bits // packed[1]
        else:
            made.parameters += elements


def _packing(quantized: Mapping[str, Any]) -> tuple[str, int] | None:
    """The dtype that holds packed elements and the bits of each, or None when nothing is packed."""
    method = quantized.get("quant_method")
    if not isinstance(method, str):
        return None
    if method in ("gptq", "awq"):
        return "I32", whole(quantized.get("bits"), 1, 32) or 4
    if method == "bitsandbytes":
        return "U8", 4 if quantized.get("load_in_4bit") is True else 8
    if method == "mxfp4":
        return "U8", 4
    if method == "compressed-tensors":
        return "I32", _compressed(quantized, "num_bits") or 32
    return "", 8  # scales are left out, everything else counts as it is


def _compressed(quantized: Mapping[str, Any], key: str) -> Any:
    """What compressed-tensors says of the weights in its first group: `num_bits`, `type`."""
    for group in part(quantized, "config_groups").values():
        weights = part(group, "weights") if isinstance(group, dict) else {}
        if weights:
            found = weights.get(key)
            return whole(found, 1, 32) if key == "num_bits" else found
    return None


def _name(quantized: Mapping[str, Any], by_dtype: Mapping[str, int]) -> str | None:
    method = quantized.get("quant_method")
    if isinstance(method, str) and 0 < len(method) <= 32 and method.isascii():
        bits = whole(quantized.get("bits"), 1, 32)
        if method == "bitsandbytes":
            bits = 4 if quantized.get("load_in_4bit") is True else 8
        kind = "int"
        if method == "compressed-tensors":
            bits = _compressed(quantized, "num_bits")
            kind = "fp" if _compressed(quantized, "type") == "float" else kind
        return method if bits is None else f"{method}-{kind}{bits}"
    most = max(by_dtype, key=lambda dtype: by_dtype[dtype], default=None)
    if most in _EIGHT_BIT_FLOATS:
        return "FP8"
    return None if most is None else _QUANTIZATION_NAMES.get(most, most)
