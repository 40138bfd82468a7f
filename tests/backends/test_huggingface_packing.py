"""Packed weights give the same logits, and leave no file mapped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.api import LoadCancelled
from hybridd.backends.huggingface import packing
from hybridd.backends.huggingface.engine import HuggingFaceEngine
from hybridd.backends.huggingface.library import AutoModelForCausalLM, torch
from tests.make_transformers import make
from tests.support_models import ask, ignore_progress, spec_for

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 on this processor"
)

# Over the size from which a model is packed.
LARGE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 5, "head_dim": 128}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("packed")
    return make("qwen2", made, **LARGE, initializer_range=0.05, dtype="bfloat16")


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_packed_layers_compute_the_same(path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.bfloat16).eval()
    ids = torch.arange(100, 109)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits.float()
        assert mapped(path)
        seen: list[tuple[str, int, int]] = []
        packing.pack(model, lambda *report: seen.append(report))
        logits = model(input_ids=ids).logits.float()
    assert seen[-1] == ("packing", 36, 36)
    assert not mapped(path)
    assert float((logits - expected).norm() / expected.norm()) < 0.02
    assert model.dtype is torch.bfloat16


def test_packing_is_up_to_the_mmap_option(path: Path) -> None:
    for mmap, stays in ((None, False), (False, False), (True, True)):
        engine = HuggingFaceEngine()
        facts = engine.load(spec_for(path, "huggingface", mmap=mmap), ignore_progress)
        assert facts["load_options"]["mmap"] is stays
        assert mapped(path) is stays
        assert (
            ask(engine, prompt="hello", options={"max_tokens": 3, "ignore_eos": True}).tokens == 3
        )
        engine.close()
        del engine


def test_packing_can_be_cancelled(path: Path) -> None:
    def report(stage: str, done: int, _total: int) -> None:
        if stage == "packing" and done > 3:
            raise LoadCancelled

    with pytest.raises(LoadCancelled):
        HuggingFaceEngine().load(spec_for(path, "huggingface"), report)
