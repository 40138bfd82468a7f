"""Each thing that is leaned on is taken away, and the model is served all the same, with a note.

What is taken away is the library's own: an attribute is deleted, or an operator gives something
else. A leaning without an entry in `AWAY` fails.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridd.backends.api import Engine

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.huggingface.engine import compat
from hybridd.backends.huggingface.engine.compat import (
    attention_hook,
    auto_classes,
    cache,
    imports,
    load_progress,
    onednn,
    peft_tuner,
    picture_positions,
    processors,
)
from hybridd.backends.huggingface.engine.compat.imports import torch, transformers
from hybridd.backends.huggingface.engine.compat.leaning import Leaning
from hybridd.backends.huggingface.engine.weights import onednn_weights
from tests import make_huggingface as tiny
from tests.make_transformers import make
from tests.support_models import ask, ignore_progress, make_engine, spec_for

Patch = pytest.MonkeyPatch

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}


def leanings() -> Iterator[Leaning]:
    """All that the fence's rooms have records of."""
    for room in pkgutil.iter_modules(compat.__path__, f"{compat.__name__}."):
        yield from (
            value
            for value in vars(importlib.import_module(room.name)).values()
            if isinstance(value, Leaning)
        )


# ---------------------------------------------------------------- taking away


def no_rules(patch: Patch) -> None:
    """transformers' own loading has its own reference; ours is taken at import."""
    rules = importlib.import_module("transformers.conversion_mapping")
    with pytest.MonkeyPatch.context() as while_imported:
        while_imported.delattr(rules, "get_checkpoint_conversion_mapping")
        patch.setattr(imports, "_MISSED", imports._compile_rules())


def no_mappings(patch: Patch) -> None:
    for kind in ("TEXT_ENCODING", "IMAGE_TEXT_TO_TEXT"):
        patch.setattr(transformers, f"MODEL_FOR_{kind}_MAPPING", None)


def no_argument(patch: Patch) -> None:
    """A version that calls the argument as none did before."""
    kind = transformers.LlamaForCausalLM
    forward = kind.forward

    def renamed(self: Any, input_ids: Any, memory: Any = None, use_cache: bool = True) -> Any:
        assert memory is None
        return forward(self, input_ids=input_ids, use_cache=use_cache)

    patch.setattr(kind, "forward", renamed)


def no_layers(patch: Patch) -> None:
    patch.setattr(transformers, "DynamicLayer", None)


def no_attention(patch: Patch) -> None:
    patch.delattr(transformers.PreTrainedModel, "set_attn_implementation")


def no_tqdm_hook(patch: Patch) -> None:
    patch.delattr(transformers.utils.logging, "set_tqdm_hook")


def no_bfloat16(patch: Patch) -> None:
    patch.setattr(onednn_weights, "_SMALL_BYTES", 0)
    patch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)


def wrong_products(patch: Patch) -> None:
    patch.setattr(onednn_weights, "_SMALL_BYTES", 0)
    patch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    right = torch.ops.mkldnn._linear_pointwise.default
    wrong = SimpleNamespace(default=lambda *arguments: 2 * right(*arguments))
    patch.setattr(torch.ops.mkldnn, "_linear_pointwise", wrong)


def no_scales(patch: Patch) -> None:
    patch.delattr(importlib.import_module("peft.tuners.lora.layer").LoraLayer, "set_scale")


def no_deltas(patch: Patch) -> None:
    """A version that calls the attribute otherwise."""
    patch.setattr(picture_positions, "_NAME", "as_no_version_called_it")


def no_ids(patch: Patch) -> None:
    made = transformers.LlavaProcessor.__init__

    @functools.wraps(made)  # its parameters are looked at
    def without(self: Any, *args: Any, **named: Any) -> None:
        made(self, *args, **named)
        del self.image_token_id

    patch.setattr(transformers.LlavaProcessor, "__init__", without)
    patch.delattr(transformers.ProcessorMixin, "image_token_ids")


def no_call(patch: Patch) -> None:
    def refusing(*_: Any, **__: Any) -> Any:
        raise TypeError("an argument that this version does not know")

    patch.setattr(transformers.LlavaProcessor, "__call__", refusing)


def llama(path: Path) -> Path:
    return make("llama", path)


def llama_bfloat16(path: Path) -> Path:
    return make("llama", path, dtype="bfloat16")


def with_adapter(path: Path) -> Path:
    peft: Any = pytest.importorskip("peft", reason="the extra adapters is not installed")
    model = transformers.AutoModelForCausalLM.from_pretrained(make("llama", path))
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(model, config).save_pretrained(path / "adapter")
    return path


AWAY: dict[str, tuple[Callable[[Patch], None], Callable[[Path], Path]]] = {
    imports.RENAMING.name: (no_rules, llama),
    auto_classes.MAPPINGS.name: (no_mappings, tiny.llava),
    cache.ARGUMENT.name: (no_argument, llama),
    cache.LAYERS.name: (no_layers, llama),
    attention_hook.HOOK.name: (no_attention, llama),
    load_progress.HOOK.name: (no_tqdm_hook, llama),
    onednn.BFLOAT16.name: (no_bfloat16, llama_bfloat16),
    onednn.PRODUCTS.name: (wrong_products, llama_bfloat16),
    peft_tuner.SCALES.name: (no_scales, with_adapter),
    picture_positions.DELTAS.name: (no_deltas, tiny.qwen2_vl),
    processors.IDS.name: (no_ids, tiny.llava),
    processors.CALL.name: (no_call, tiny.llava),
}


# ---------------------------------------------------------------- being served


def opened(path: Path) -> tuple[Engine, list[str]]:
    """The model as a worker would load it, and its notes."""
    engine = make_engine("huggingface")
    spec = spec_for(path, "huggingface")
    if (path / "adapter").exists():
        spec["adapters"] = [{"name": "one", "path": str(path / "adapter")}]
    return engine, engine.load(spec, ignore_progress)["notes"]


def said(engine: Engine, path: Path) -> list[str]:
    """Two answers, the second behind what the first left."""
    chosen = [{"name": "one", "scale": 1}] if (path / "adapter").exists() else []
    options = {**GREEDY, "adapters": chosen}
    prompts = ("what is the time", "what is the time and what is it")
    answers = [ask(engine, prompt=prompt, options=options) for prompt in prompts]
    assert not any(answer.error for answer in answers), answers
    return [answer.text for answer in answers]


# peft 0.21 asks transformers 5 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("leaning", list(leanings()), ids=lambda leaning: leaning.name)
def test_a_model_is_served_without_it_and_says_so(
    tmp_path: Path, monkeypatch: Patch, leaning: Leaning
) -> None:
    take_away, build = AWAY[leaning.name]
    path = build(tmp_path / "model")
    engine, notes = opened(path)
    expected = said(engine, path)
    assert not any(leaning.without in note for note in notes)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # nothing known of before
    take_away(monkeypatch)
    engine, notes = opened(path)
    assert any(leaning.without in note for note in notes), notes
    assert said(engine, path) == expected
    if leaning.without.startswith("pictures"):
        content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}]
        error = ask(engine, "chat", messages=[{"role": "user", "content": content}]).error
        assert error["data"]["kind"] == "unsupported"
        assert error["message"] == leaning.without
    if build is with_adapter:
        options = {**GREEDY, "adapters": [{"name": "one", "scale": 0.5}]}
        error = ask(engine, prompt="what", options=options).error
        assert (error["data"]["kind"], error["message"]) == ("unsupported", leaning.without)


def test_records_are_whole() -> None:
    known = list(leanings())
    assert {leaning.name for leaning in known} == set(AWAY)
    for leaning in known:
        assert leaning.purpose
        assert any(character.isdigit() for character in leaning.seen)
        assert leaning.without[0].islower()
        assert not leaning.without.endswith(".")


def test_a_model_that_goes_as_it_should_has_no_notes(tmp_path: Path) -> None:
    assert opened(llama(tmp_path))[1] == []


def test_an_encoder_is_told_by_its_names(tmp_path: Path) -> None:
    """Of an encoder-decoder the encoder alone."""
    for build in (tiny.bert, tiny.llama_encoder, tiny.t5_encoder):
        path = build(tmp_path / build.__name__)
        vectors = []
        for away in (False, True):
            with pytest.MonkeyPatch.context() as patch:
                if away:
                    no_mappings(patch)
                engine, notes = opened(path)
                assert (auto_classes.MAPPINGS.without in notes) is away
                vectors.append(ask(engine, "embed", input=["what is the time"]).result)
        assert vectors[0] == vectors[1]
