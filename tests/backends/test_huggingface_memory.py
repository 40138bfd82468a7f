"""What a pass lets go of stays for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

# Tensors as a chunk's pass of a small model makes them: more than the C library keeps by itself.
PASSES = """
import resource, sys
from hybridd.backends.huggingface.library import torch
from hybridd.backends.huggingface.memory import keep_memory

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
    assert touched("leave") > pages / 2  # else there is nothing to keep by hand
