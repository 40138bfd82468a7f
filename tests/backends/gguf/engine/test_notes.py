"""What a load of the GGUF engine says of itself where it is unlike what was asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from hybridd.backends.gguf.engine.generator import GGUFEngine
from hybridd.backends.gguf.engine.notes import Outcome, notes_of
from hybridd.backends.gguf.engine.weights.llama import start
from hybridd.backends.gguf.engine.weights.load_options import LoadOptions
from tests.make_gguf import CONTEXT, write_tiny
from tests.support_models import ignore_progress, spec_for

AS_ASKED = Outcome(
    weights_bytes=5_000_000,
    locked_bytes=0,
    trained_context=512,
    context_length=512,
    draft_length=None,
    without_flash=False,
    has_gpu=False,
    built_for_gpu=False,
)


def notes(asked: dict[str, Any], **outcome: Any) -> list[str]:
    return notes_of(asked, LoadOptions.from_wire(asked), replace(AS_ASKED, **outcome))


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        ({}, {}),
        ({"gpu_layers": "auto"}, {}),
        ({"device": "cpu"}, {"built_for_gpu": True}),
        ({"gpu_layers": 0}, {"built_for_gpu": True}),
        ({"gpu_layers": 20}, {"built_for_gpu": True, "has_gpu": True}),
        ({"mlock": True}, {"locked_bytes": 5_000_000}),
        ({"flash_attention": False}, {"without_flash": True}),
        ({"rope_scaling": {"factor": 2.0}}, {"context_length": 1024}),
        ({}, {"trained_context": 0}),
        ({"context_length": 512}, {"draft_length": 512}),
    ],
)
def test_nothing_is_said_where_all_is_as_it_was_asked(
    asked: dict[str, Any], outcome: dict[str, Any]
) -> None:
    assert notes(asked, **outcome) == []


@pytest.mark.parametrize(
    ("asked", "outcome", "said"),
    [
        ({"mlock": True}, {"locked_bytes": 1}, "the weights are not locked in memory: "),
        ({}, {"built_for_gpu": True}, "no layer is on a GPU: llama.cpp was built for one"),
        ({"gpu_layers": 20}, {}, "no layer is on a GPU: this build of llama.cpp has no GPU"),
        ({"tensor_split": [1, 1], "device": "cpu"}, {}, "tensor_split has no effect: "),
        ({}, {"without_flash": True}, "flash attention is off: "),
        ({"flash_attention": True}, {"without_flash": True}, "flash attention is off: "),
        ({}, {"context_length": 1024}, "the context of 1024 tokens is longer than the 512 "),
        ({"context_length": 600}, {}, "a request has at most 512 tokens, not 600 as asked"),
        ({}, {"draft_length": 256}, "past 256 tokens of a conversation nothing is drafted"),
    ],
)
def test_what_is_otherwise_is_said(
    asked: dict[str, Any], outcome: dict[str, Any], said: str
) -> None:
    (note,) = notes(asked, **outcome)
    assert note.startswith(said)
    assert not note.endswith(".")


def test_a_load_says_it(tmp_path: Path) -> None:
    engine = GGUFEngine()
    path = write_tiny("tiny-llama", tmp_path)
    facts = engine.load(spec_for(path, "gguf", context_length=256, threads=1), ignore_progress)
    assert facts["notes"] == []
    engine.close()
    engine = GGUFEngine()
    longer = spec_for(path, "gguf", context_length=2 * CONTEXT, threads=1, gpu_layers=1)
    with_gpu, too_long = engine.load(longer, ignore_progress)["notes"]
    assert with_gpu.startswith("no layer is on a GPU")
    assert too_long.startswith(f"the context of {2 * CONTEXT} tokens is longer than the {CONTEXT}")
    engine.close()


@pytest.mark.parametrize(
    ("line", "without"),
    [
        (b"resolve_fused_ops: Flash Attention not supported, set to disabled\n", True),
        (b"llama_init_from_model: flash_attn is not compatible with Grok - forcing off\n", True),
        (b"resolve_fused_ops: fused Gated Delta Net not supported, set to disabled\n", False),
    ],
)
def test_llama_cpps_log_is_listened_to(line: bytes, without: bool) -> None:
    log = start()
    log.take(3, line, None)
    assert log.without_flash is without


def test_lines_are_written_whole_with_their_level(capfd: pytest.CaptureFixture[str]) -> None:
    log = start()
    capfd.readouterr()
    for level, text in (
        (1, b"for who writes llama.cpp\n"),
        (2, b"loading"), (5, b" 5 tensors"), (5, b"."), (5, b"\n"),
        (3, b"careful\nvery\n"),
        (3, b"load: adding 5 dummy tokens\n"),
        (4, b"no end"), (2, b"next\n"),
    ):  # fmt: skip
        log.take(level, text, None)
    said = capfd.readouterr().err.splitlines()
    assert said == [
        "<7>loading 5 tensors", "<4>careful", "<4>very", "<7>load: adding 5 dummy tokens",
        "<3>no end", "<7>next",
    ]  # fmt: skip
    assert list(log.errors) == ["no end"]
