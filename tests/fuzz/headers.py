"""Bends the headers of model files and looks at what the inspection makes of them.

    python -m tests.fuzz.headers [--mutants 200000] [--seed 1] [--only NUMBER] [--jobs N]

A quarter each: GGUF bytes, GGUF fields, safetensors headers, and the JSON beside them (config.json
and its companions); half of the JSON is bent as bytes, half as values. An inspection may return
facts or raise `ModelInvalid`, within 250 ms and 32 MiB of Python's memory; anything else is printed
with its number, and the exit code is 1. Mutant NUMBER of a seed is the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import shutil
import struct
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hybridd.backends.api import Backend
from hybridd.backends.registry import load_backends
from hybridd.core.packed import Packed
from hybridd.wire.errors import ModelInvalid
from tests import make_models as make

LIMIT_S = 0.25
LIMIT_BYTES = 32 * 1024 * 1024
# More than a mutant can take away.
_ROOM = 1024
# So many mutants share what is costly to set up.
_BATCH = 500

_WEIRD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, -(2**63), 10**400, 0.0,
    -0.5, 1e308, math.inf, math.nan, "", "\0", "\ud800", "x" * 5000, "../../etc/passwd", "💥",
    [], {}, [[]],
    [None] * 300, {"": None}, ["a", 1, None], [2**63] * 3, [1e308], {"a": {"b": [{}]}}, "1", "null",
)  # fmt: skip


def weird(chance: random.Random) -> Any:
    """A value that nobody expects."""
    if chance.random() < 0.03:
        deep: Any = 1
        for _ in range(chance.choice((10, 100, 900))):
            deep = [deep] if chance.random() < 0.5 else {"d": deep}
        return deep
    return chance.choice(_WEIRD)


# ---------------------------------------------------------------- GGUF


def _gguf_bases() -> list[tuple[dict[str, Any], list[make.Tensor]]]:
    per_layer = make.Array(make.I32, [2, 0])
    moe = make.llama_metadata(
        general__architecture="qwen3moe", qwen3moe__block_count=2, qwen3moe__expert_count=8,
        qwen3moe__attention__head_count_kv=per_layer, qwen3moe__expert_used_count=2,
    )  # fmt: skip
    encoder = make.llama_metadata(general__architecture="bert", bert__pooling_type=1)
    projector = {"general.architecture": "clip", "clip.has_vision_encoder": True}
    base = {
        "general.base_model.count": 1,
        "general.base_model.0.repo_url": "https://hub/p/n",
        "general.tags": make.Array(make.STRING, ["a", "b"]),
        "general.sampling.temp": 0.6,
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.attention.sliding_window": 1024,
        "split.count": make.Typed(make.U16, 1),
    }
    return [
        (make.llama_metadata(), make.llama_tensors()),
        ({**make.llama_metadata(), **base}, make.llama_tensors("Q8_0")),
        (moe, make.llama_tensors()),
        (encoder, make.llama_tensors("F16")),
        (projector, make.llama_tensors("F16")),
    ]


_BASES = _gguf_bases()
_GGUF_WEIRD: tuple[Any, ...] = (
    make.Typed(make.U64, 2**64 - 1), make.Typed(make.I64, -(2**63)), make.Typed(make.F32, math.nan),
    make.Typed(make.F64, math.inf), make.Typed(make.U8, 255), make.Typed(make.I32, -1), "",
    "\0" * 9, "x" * 70_000, True, 0, make.Array(make.STRING, []),
    make.Array(make.STRING, ["", "a"] * 40),
    make.Array(make.U64, [2**64 - 1] * 3), make.Array(make.F32, [math.nan] * 2000),
    make.Array(make.BOOL, [True]), make.Array(make.I8, [-1] * 1024), make.Typed(make.U32, 2**31),
)  # fmt: skip


def gguf_bytes(chance: random.Random, place: Path) -> Path:
    """A GGUF file with bytes, lengths, cuts and insertions in its header."""
    header, data = make.gguf_header(*chance.choice(_BASES))
    made = next(make.mutants(header + bytes(_ROOM), len(header), 1, chance.getrandbits(32)))
    path = place / "m.gguf"
    path.write_bytes(made)
    os.truncate(path, max(0, len(made) + data - chance.choice((0, 0, 0, _ROOM + 1, 10_000_000))))
    return path


def gguf_fields(chance: random.Random, place: Path) -> Path:
    """A well-formed GGUF file whose fields say what makes no sense."""
    metadata, tensors = chance.choice(_BASES)
    metadata, tensors = dict(metadata), list(tensors)
    for _ in range(chance.choice((1, 1, 2, 5))):
        kind = chance.randrange(4)
        key = chance.choice(list(metadata) or ["general.architecture"])
        if kind == 0:
            metadata[key] = chance.choice(_GGUF_WEIRD)
        elif kind == 1:
            metadata.pop(key, None)
        elif kind == 2 and tensors:
            at = chance.randrange(len(tensors))
            shape = tuple(
                chance.choice((0, 1, 31, 256, 2**32, 2**63 - 1)) for _ in range(chance.randrange(5))
            )
            names = [tensors[at].name, "", "x" * 65, tensors[0].name, "blk.0.a.lora_a"]
            tensors[at] = tensors[at]._replace(shape=shape, name=chance.choice(names))
        elif tensors:
            del tensors[chance.randrange(len(tensors))]
    path = place / "m.gguf"
    try:
        header, data = make.gguf_header(metadata, tensors)
    except (struct.error, ZeroDivisionError, ValueError, TypeError, OverflowError):
        header, data = make.gguf_header(make.llama_metadata(), [])  # no such file can be written
    path.write_bytes(header)
    with open(path, "r+b") as file:
        file.truncate(min(len(header) + data, 2**42))
    return path


# ---------------------------------------------------------------- Hugging Face


def _bent(chance: random.Random, value: Any) -> Any:
    """A copy of a JSON value with one place in it changed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        made = dict(value)
        choice = chance.randrange(8)
        if choice == 0:
            del made[key]
        elif choice == 1:
            made[chance.choice(list(value))] = value[key]
        else:
            made[key] = _bent(chance, value[key])
        return made
    if isinstance(value, list) and value and chance.random() < 0.8:
        made_list = list(value)
        made_list[chance.randrange(len(value))] = _bent(chance, chance.choice(value))
        return made_list
    return weird(chance)


def _as_json(chance: random.Random, value: Any) -> bytes:
    """Bent as a value or as bytes."""
    if chance.random() < 0.5:
        for _ in range(chance.choice((1, 1, 2, 4))):
            value = _bent(chance, value)
        return json.dumps(value).encode()
    said = json.dumps(value).encode()
    return next(make.mutants(said + b" " * _ROOM, len(said), 1, chance.getrandbits(32)))


_JSON: dict[str, Any] = {
    "config.json": make.hf_config(
        text_config=make.hf_config(),
        quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128},
        rope_scaling={"rope_type": "yarn", "factor": 4.0},
        num_local_experts=8,
        auto_map={"AutoModel": "x.py"},
    ),
    "generation_config.json": {"temperature": 0.6, "top_p": 0.9, "top_k": 20},
    "tokenizer_config.json": {"chat_template": [{"name": "default", "template": "{{ m }}"}]},
    "preprocessor_config.json": {"image_processor_type": "X", "size": {"height": 1}},
    "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "p/n", "r": 8},
    "modules.json": [{"idx": 0, "type": "sentence_transformers.models.Pooling"}],
    "1_Pooling/config.json": {"pooling_mode_cls_token": True},
    "model.safetensors.index.json": {"weight_map": {"a": "model.safetensors"}},
    "genai_config.json": {"model": {"type": "llama", "context_length": 4096}},
}


def _whole(place: Path) -> None:
    """A directory that is a usable model, and nothing left of the mutant before."""
    shutil.rmtree(place)
    make.write_hf(place)


def safetensors(chance: random.Random, place: Path) -> Path:
    """A Hugging Face directory with a bent safetensors header."""
    _whole(place)
    header, data = make.safetensors_header(make.hf_tensors())
    if chance.random() < 0.5:
        raw = next(make.mutants(header + bytes(_ROOM), len(header), 1, chance.getrandbits(32)))
    else:
        said = _as_json(chance, json.loads(header[8:]))
        raw = struct.pack("<Q", len(said)) + said
    path = place / "model.safetensors"
    path.write_bytes(raw)
    os.truncate(path, max(0, len(raw) + data - chance.choice((0, 0, 1, 100))))
    return place


def hf_json(chance: random.Random, place: Path) -> Path:
    """A Hugging Face directory with one bent JSON file."""
    _whole(place)
    name = chance.choice([*_JSON, *["config.json"] * 8])
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_bytes(_as_json(chance, _JSON[name]))
    return place


class Kind(NamedTuple):
    """One way to bend."""

    format: str
    make: Callable[[random.Random, Path], Path]


KINDS = (
    Kind("gguf", gguf_bytes),
    Kind("gguf", gguf_fields),
    Kind("huggingface", safetensors),
    Kind("huggingface", hf_json),
)

# ---------------------------------------------------------------- looking


@dataclass
class Tally:
    """What came of some mutants."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    largest_bytes: int = 0
    bad: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take another's figures in."""
        self.outcomes += other.outcomes
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.largest_bytes = max(self.largest_bytes, other.largest_bytes)
        self.bad += other.bad


def look(number: int, seed: int, place: Path, backends: dict[str, Backend], tally: Tally) -> None:
    """Make mutant `number` and inspect it."""
    kind = KINDS[number % len(KINDS)]
    path = kind.make(random.Random(f"{seed}/{number}"), place)
    backend = backends[kind.format]
    problem = None
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    began = time.thread_time()
    try:
        facts = backend.inspect(path)
        backend.estimate(facts, {})
        Packed.of(facts.metadata)  # has to be sent and remembered
        json.dumps([facts.defaults, facts.capabilities, facts.reason], allow_nan=False).encode()
        outcome = "listed as invalid" if facts.reason else "accepted"
    except ModelInvalid as error:
        outcome = "refused"
        if not error.data.get("reason"):
            problem = "no reason"
    except BaseException as error:
        outcome, problem = "failed", f"{type(error).__name__}: {error}"[:300]
    taken = time.thread_time() - began
    held = tracemalloc.get_traced_memory()[1] - before
    tally.outcomes[f"{kind.make.__name__} {outcome}"] += 1
    tally.slowest_s, tally.largest_bytes = (
        max(tally.slowest_s, taken),
        max(tally.largest_bytes, held),
    )
    if taken > LIMIT_S or held > LIMIT_BYTES:
        problem = f"{taken * 1000:.0f} ms, {held / 2**20:.1f} MiB"
    if problem:
        tally.bad.append(f"mutant {number} ({kind.make.__name__}): {problem}")


def batch(job: tuple[int, int, int]) -> Tally:
    """Some mutants in a row, in a process of their own."""
    seed, first, last = job
    backends, tally = load_backends(), Tally()
    tracemalloc.start()
    with make.memory_directory() as name:
        places = {kind: Path(name, kind.make.__name__) for kind in KINDS}
        for place in places.values():
            place.mkdir()
        for number in range(first, last):
            look(number, seed, places[KINDS[number % len(KINDS)]], backends, tally)
    tracemalloc.stop()
    return tally


def main() -> int:
    """Run, print, and say by the exit code whether all was well."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--mutants", type=int, default=200_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--only", type=int, metavar="NUMBER")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = arguments.parse_args()
    began, total = time.monotonic(), Tally()
    if options.only is not None:
        total = batch((options.seed, options.only, options.only + 1))
    else:
        jobs = [
            (options.seed, first, min(first + _BATCH, options.mutants))
            for first in range(0, options.mutants, _BATCH)
        ]
        with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=50) as pool:
            for tally in pool.imap_unordered(batch, jobs):
                total.add(tally)
    for what, count in sorted(total.outcomes.items()):
        print(f"{count:>9}  {what}")
    print(
        f"{total.outcomes.total()} mutants of seed {options.seed} in "
        f"{time.monotonic() - began:.0f} s: slowest {total.slowest_s * 1000:.1f} ms of its own, "
        f"largest {total.largest_bytes / 2**20:.1f} MiB, {len(total.bad)} bad"
    )
    print("\n".join(total.bad[:50]))
    return 1 if total.bad else 0


if __name__ == "__main__":
    sys.exit(main())
