"""What a pass lets go of stays for the next one, and passes of many lengths leave little."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

# Tensors as a chunk's pass of a small model makes them: more than the C library keeps by itself.
PASSES = """
import resource, sys
from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.weights.memory import keep_memory

def work():
    return [torch.ones(5_000_000, dtype=torch.uint8) for _ in range(4)]

def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_memory()
for _ in range(4):
    work()
print(max(touched() for _ in range(5)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_kept_from_one_pass_to_the_next() -> None:
    def touched(how: str) -> int:
        command = [sys.executable, "-c", PASSES, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    pages = 20_000_000 // 4096
    assert touched("keep") < pages / 10
    if touched("leave") <= pages / 2:
        pytest.skip("this torch keeps its memory by itself")


# Products of packed weights with many numbers of rows, as prompts have.
LENGTHS = """
import sys
from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.weights.memory import keep_few_programs

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = torch.nn.Module()
        setattr(self.mlp, sys.argv[1], torch.nn.Module())

def private():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))

torch.set_num_threads(1)
keep_few_programs(Model())
with torch.inference_mode():
    weight = torch.randn(1024, 1024).bfloat16()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    rows = torch.randn(320, 1024).bfloat16()

    def product(count):
        torch.ops.mkldnn._linear_pointwise(rows[:count], packed, None, "none", [], "")

    product(320)
    before = private()
    for count in range(20, 320):
        product(count)
print(private() - before)
"""


@pytest.mark.skipif(
    "avx512_bf16" not in Path("/proc/cpuinfo").read_text(), reason="another kind of processor"
)
def test_passes_of_many_lengths_leave_little_memory() -> None:
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    env = {name: value for name, value in os.environ.items() if name not in names}

    def left(part: str) -> int:
        command = [sys.executable, "-c", LENGTHS, part]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        return int(done.stdout)

    assert left("gate_proj") < left("experts") / 2  # which keeps all of them
