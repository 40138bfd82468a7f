"""Layers in fewer calls give the same numbers, and only layers that are known get them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.huggingface import attention, lean_layers
from hybridd.backends.huggingface.engine import HuggingFaceEngine
from hybridd.backends.huggingface.library import DynamicCache, torch
from hybridd.backends.huggingface.session import Aborted
from tests.make_transformers import make
from tests.support_models import ask, ignore_progress, spec_for

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 on this processor"
)

# Over the size from which a model is packed.
LARGE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 5, "head_dim": 128}
GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}

Load = Callable[..., HuggingFaceEngine]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def path(family: str) -> Path:
        if family not in made:
            where = tmp_path_factory.mktemp(family)
            kinds = {"layer_types": ["full_attention"] * 5} if family == "gemma3" else {}
            more = {"initializer_range": 0.05, "dtype": "bfloat16", **kinds}
            made[family] = make(family, where, **LARGE, **more)
        return made[family]

    return path


@pytest.fixture
def load(tmp_path: Path, paths: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a family's model; what was found out of it stays within the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def loaded(family: str, **options: Any) -> HuggingFaceEngine:
        engine = HuggingFaceEngine()
        engine.load(spec_for(paths(family), "huggingface", **options), ignore_progress)
        return engine

    return loaded


def layers(engine: HuggingFaceEngine) -> list[Any]:
    assert engine._loaded is not None
    return list(engine._loaded.model.model.layers)


def lean(engine: HuggingFaceEngine) -> list[bool]:
    return [isinstance(layer.forward, lean_layers._Lean) for layer in layers(engine)]


def logits(engine: HuggingFaceEngine) -> list[Any]:
    """Of passes with beginnings, chunks and single tokens, of rows of different lengths."""
    session: Any = engine._session
    torch.manual_seed(7)
    rows = [session.take([1, 2, 3], 200) for _ in range(4)]
    made = []
    for counts in ((40, 3, 7, 90), (1, 1, 1, 1), (1, 5, 1, 30), (1, 1, 1, 1)):
        works = [
            (row, torch.randint(5, 1000, (count,)).tolist())
            for row, count in zip(rows, counts, strict=True)
        ]
        made.append(session.forward(works))
    for row in rows:
        session.drop(row)
    return made


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_lean_layers_give_the_same_numbers(
    load: Load, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(family)
    assert all(lean(engine))
    again = load(family)  # by what is known of it
    assert all(lean(again))
    monkeypatch.setattr(lean_layers, "replace", lambda _model: None)
    plain = load(family)
    assert not any(lean(plain))
    for one, other, expected in zip(logits(engine), logits(again), logits(plain), strict=True):
        assert torch.equal(one, expected)
        assert torch.equal(other, expected)
    texts = {ask(e, prompt="ab é世", options=GREEDY).text for e in (engine, again, plain)}
    assert len(texts) == 1


@pytest.mark.skipif(
    "avx512_bf16" not in Path("/proc/cpuinfo").read_text(), reason="another kind of processor"
)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_what_a_row_gets_depends_on_nobody_else(load: Load, family: str, threads: int) -> None:
    session: Any = load(family, threads=threads, parallel=8)._session

    def steps(lengths: list[int]) -> list[Any]:
        """The first row's logits."""
        drawn = random.Random(3)
        rows = [session.take([number], 200) for number, _ in enumerate(lengths, 5)]
        made = []
        for _ in range(8):
            works = [
                (row, drawn.choices(range(5, 1000), k=1 if row.length else length))
                for row, length in zip(rows, lengths, strict=True)
            ]
            drawn.seed(len(made))  # the first row's next token is the same in any company
            made.append(session.forward(works)[0])
        for row in rows:
            session.drop(row)
        return made

    alone = steps([37])
    for others in ([3], [90, 37], [1, 2, 3, 4, 50, 60, 70]):
        assert all(map(torch.equal, steps([37, *others]), alone))


def test_common_norms_are_called_in_fewer_steps(load: Load) -> None:
    torch.manual_seed(5)
    rows = torch.randn(1, 9, 512, dtype=torch.bfloat16)
    with torch.inference_mode():
        for family, fewer in (("llama", True), ("qwen3", True), ("gemma3", False)):
            norm = layers(load(family))[0].input_layernorm
            norm.weight.copy_(torch.randn(512))
            lean_norm, given = lean_layers._norm(norm), rows.clone()
            assert (lean_norm != norm.forward) is fewer
            assert torch.equal(lean_norm(given), norm(rows))
            assert torch.equal(given, rows)
        exact = type(norm)(512).float()
        assert lean_layers._norm(exact) == exact.forward


@pytest.mark.parametrize("family", ["gemma3", "mixtral"])
def test_other_layers_stay_as_they_are(load: Load, family: str) -> None:
    engine = load(family)
    assert not any(lean(engine))
    assert ask(engine, prompt="ab", options=GREEDY).tokens == 12


@pytest.mark.parametrize("options", [{"mmap": True}, {"dtype": "float32"}])
def test_layers_that_are_not_packed_stay_as_they_are(load: Load, options: dict[str, Any]) -> None:
    assert not any(lean(load("llama", **options)))
    assert all(lean(load("llama")))


def test_without_our_cache_a_layer_is_its_own(load: Load) -> None:
    engine = load("llama")
    model = engine._loaded.model  # type: ignore[union-attr]
    session: Any = engine._session
    ids = torch.tensor([[5, 6, 7]])
    session._config._attn_implementation_internal = "sdpa"
    with torch.inference_mode():
        mixed = model(input_ids=ids, past_key_values=DynamicCache(config=model.config)).logits
        session.close()
        own = model(input_ids=ids, past_key_values=DynamicCache(config=model.config)).logits
    assert not any(lean(engine))
    assert torch.equal(mixed, own)


def test_a_layer_that_lacks_a_part_leaves_all_as_they_are(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ready = lean_layers._Lean.__init__, []

    def lacking(self: Any, layer: Any) -> None:
        if ready:
            raise AttributeError("forward")
        ready.append(layer)
        made(self, layer)

    monkeypatch.setattr(lean_layers._Lean, "__init__", lacking)
    engine = load("llama")
    assert not any(lean(engine))
    assert engine._session is not None
    assert engine._session.reason is None


def test_a_session_can_be_closed_twice(load: Load) -> None:
    engine = load("llama")
    session: Any = engine._session
    session.close()
    session.close()
    assert not any(lean(engine))


@pytest.mark.parametrize("how", ["other numbers", "an exception"])
def test_layers_that_fail_the_trial_are_given_back(
    load: Load, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = lean_layers._turn

    def wrong(heads: Any, cos: Any, sin: Any) -> Any:
        if how == "an exception":
            raise RuntimeError("not of this kind")
        made = turn(heads, cos, sin)
        made[..., 0] *= 1.01
        return made

    monkeypatch.setattr(lean_layers, "_turn", wrong)
    for _ in range(2):  # the second by what is known of it
        engine = load("llama")
        assert not any(lean(engine))
        assert engine._session is not None
        assert engine._session.reason is None
        assert ask(engine, prompt="ab", options=GREEDY).tokens == 12


def test_code_that_names_something_else_is_of_another_kind(load: Load) -> None:
    """A layer that does the same at first and something else at later positions."""
    engine = load("llama")
    layer = layers(engine)[0]
    engine._session.close()  # type: ignore[union-attr]
    assert lean_layers._is_common(layer)
    kind, attending = type(layer), type(layer.self_attn)

    class Later(kind):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Any, position_ids: Any = None, **more: Any) -> Any:
            return kind.forward(self, hidden_states, **more) * (1 + position_ids.clamp(min=99))

    class Scaled(attending):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Any, **more: Any) -> Any:
            return attending.forward(self, hidden_states * getattr(self.config, "scale"), **more)  # noqa: B009

    layer.__class__ = Later
    assert not lean_layers._is_common(layer)
    layer.__class__ = kind
    layer.self_attn.__class__ = Scaled
    assert not lean_layers._is_common(layer)
    layer.self_attn.__class__ = attending
    layer.self_attn.q_norm = layer.input_layernorm  # which the code does not call
    assert not lean_layers._is_common(layer)
    del layer.self_attn.q_norm

    class More(attending):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Any, attn_scale: Any = 1, **more: Any) -> Any:
            return attending.forward(self, hidden_states * attn_scale, **more)

    layer.self_attn.__class__ = More
    assert not lean_layers._is_common(layer)
    layer.self_attn.__class__ = attending
    hook = layer.input_layernorm.register_forward_hook(lambda *_: None)
    assert not lean_layers._is_common(layer)
    hook.remove()
    layer.mlp.forward = layer.mlp.forward
    assert not lean_layers._is_common(layer)
    del layer.mlp.forward
    layer.forward = layer.forward  # somebody's hook
    assert not lean_layers._is_common(layer)
    del layer.forward
    assert lean_layers._is_common(layer)


def test_names_are_of_all_code_inside() -> None:
    def outer(x: Any) -> Any:
        return [getattr(one, "hidden").inner for one in x.several]  # noqa: B009

    assert lean_layers._names(outer) == {"getattr", "hidden", "inner", "several"}
    assert lean_layers._names(len) == {"?"}
    assert lean_layers._names(None) == {"?"}


def test_a_cancelled_pass_of_lean_layers_ends_at_a_layer(load: Load) -> None:
    engine = load("llama")
    session: Any = engine._session
    asked: list[int] = []

    def abort() -> bool:
        asked.append(1)
        return len(asked) > 2

    row = session.take([1] * 9, 50)
    with pytest.raises(Aborted):
        session.forward([(row, [1] * 9)], abort)
    assert len(asked) == 3
    assert attention._current == []
