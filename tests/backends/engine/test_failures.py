"""What libraries raise becomes what people can do something about."""

from __future__ import annotations

import errno

import pytest

from hybridd.backends.engine.failures import load_failure, work_failure
from hybridd.wire.errors import HybriddError


class OutOfMemoryError(RuntimeError):
    """As torch calls that of a device."""


def reason(error: HybriddError) -> object:
    return error.data["reason"]


def torch_without_memory() -> Exception:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)  # more than a process can have addresses for
    return raised.value


@pytest.mark.parametrize(
    "exc",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OutOfMemoryError("CUDA out of memory."),
        RuntimeError("unable to mmap 48 bytes from file <m>: Cannot allocate memory (12)"),
    ],
)
def test_memory_that_ran_out_is_told(exc: Exception) -> None:
    assert reason(work_failure(exc)) == "out_of_memory"
    assert reason(load_failure(exc, "a-model")) == "out_of_memory"


def test_memory_that_torch_did_not_get_is_told() -> None:
    exc = torch_without_memory()
    assert reason(work_failure(exc)) == "out_of_memory"
    assert reason(load_failure(exc, "a-model")) == "out_of_memory"


def test_anything_else_is_the_engines() -> None:
    for exc in (RuntimeError("shapes do not fit"), KeyError("memory")):
        assert reason(work_failure(exc)) == "engine_error"
