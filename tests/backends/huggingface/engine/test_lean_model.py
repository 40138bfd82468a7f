"""Models in fewer calls give the same numbers, and only those that are known get them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.huggingface.engine.compat.library import DynamicCache, torch
from hybridd.backends.huggingface.engine.forward import attention, batched, lean_model
from hybridd.backends.huggingface.engine.forward.session import Aborted, close
from hybridd.backends.huggingface.engine.generator import HuggingFaceEngine
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


def model_of(engine: HuggingFaceEngine) -> Any:
    assert engine._loaded is not None
    return engine._loaded.model


def close_session(engine: HuggingFaceEngine) -> None:
    """The model's attention is its own again."""
    session: Any = engine._session
    session.close()


def layers(engine: HuggingFaceEngine) -> list[Any]:
    return list(model_of(engine).model.layers)


def lean(engine: HuggingFaceEngine) -> bool:
    session: Any = engine._session
    assert session.reason is None
    return session._lean is not None


PASSES = ((40, 3, 7, 90), (1, 1, 1, 1), (1, 5, 1, 30), (1, 1, 1, 1))


def logits(engine: HuggingFaceEngine) -> list[Any]:
    """Of passes with beginnings, chunks and single tokens, of rows of different lengths."""
    session: Any = engine._session
    torch.manual_seed(7)
    rows = [session.take([1, 2, 3], 200) for _ in range(4)]
    made = []
    for counts in PASSES:
        works = [
            (row, torch.randint(5, 1000, (count,)).tolist())
            for row, count in zip(rows, counts, strict=True)
        ]
        made.append(session.forward(works))
    for row in rows:
        session.drop(row)
    return made


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_lean_models_give_the_same_numbers(
    load: Load, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(family)
    assert lean(engine)
    again = load(family)  # by what is known of it
    assert lean(again)
    monkeypatch.setattr(batched, "in_fewer_calls", lambda _model: None)
    plain = load(family)
    assert not lean(plain)
    made = zip(PASSES, logits(engine), logits(again), logits(plain), strict=True)
    for counts, one, other, expected in made:
        assert torch.equal(one, other)
        for row, count in enumerate(counts):
            if count == 1:
                assert torch.equal(one[row], expected[row])
            # Else the last layer's attention is not of the whole chunk, and adds up otherwise.
            assert close(one[row], expected[row], "none")
    texts = {ask(e, prompt="ab é世", options=GREEDY).text for e in (engine, again)}
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
            lean_norm, given = lean_model._norm(norm), rows.clone()
            assert (lean_norm != norm.forward) is fewer
            assert torch.equal(lean_norm(given), norm(rows))
            assert torch.equal(given, rows)
        exact = type(norm)(512).float()
        assert lean_model._norm(exact) == exact.forward


@pytest.mark.parametrize("family", ["gemma3", "mixtral"])
def test_models_of_other_kinds_are_called_as_they_are(load: Load, family: str) -> None:
    engine = load(family)
    assert not lean(engine)
    assert ask(engine, prompt="ab", options=GREEDY).tokens == 12


@pytest.mark.parametrize("options", [{"mmap": True}, {"dtype": "float32"}])
def test_models_that_are_not_packed_are_called_as_they_are(
    load: Load, options: dict[str, Any]
) -> None:
    assert not lean(load("llama", **options))
    assert lean(load("llama"))


def test_the_model_itself_stays_as_it_is(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = [load("llama")]
    assert lean(engines[0])
    monkeypatch.setattr(batched, "in_fewer_calls", lambda _model: None)
    engines.append(load("llama"))
    made = []
    for engine in engines:
        close_session(engine)
        model = model_of(engine)
        assert not any("forward" in vars(layer) for layer in layers(engine))
        ids = torch.tensor([[5, 6, 7]])
        with torch.inference_mode():
            made.append(model(ids, past_key_values=DynamicCache(config=model.config)).logits)
    assert torch.equal(*made)


def test_a_model_with_a_layer_that_lacks_a_part_is_called_as_it_is(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ready = lean_model._Layer.__init__, []

    def lacking(self: Any, layer: Any) -> None:
        if ready:
            raise AttributeError("forward")
        ready.append(layer)
        made(self, layer)

    monkeypatch.setattr(lean_model._Layer, "__init__", lacking)
    engine = load("llama")
    assert not lean(engine)
    assert engine._session is not None
    assert engine._session.reason is None


@pytest.mark.parametrize("how", ["other numbers", "an exception", "other ends"])
def test_a_model_that_fails_the_trial_is_called_as_it_is(
    load: Load, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = lean_model._turn

    def wrong(heads: Any, cos: Any, sin: Any) -> Any:
        if how == "an exception":
            raise RuntimeError("not of this kind")
        made = turn(heads, cos, sin)
        made[..., 0] *= 1.01
        return made

    def wrong_ends(rows: Any, queries: Any, scaling: Any) -> Any:
        return 3 * ends(rows, queries, scaling)

    if how == "other ends":
        ends = attention.RowsPass.attend_ends
        monkeypatch.setattr(attention.RowsPass, "attend_ends", wrong_ends)
    else:
        monkeypatch.setattr(lean_model, "_turn", wrong)
    for _ in range(2):  # the second by what is known of it
        engine = load("llama")
        assert not lean(engine)
        assert engine._session is not None
        assert engine._session.reason is None
        assert ask(engine, prompt="ab", options=GREEDY).tokens == 12


def test_code_that_names_something_else_is_of_another_kind(load: Load) -> None:
    """A layer that does the same at first and something else at later positions."""
    engine = load("llama")
    layer = layers(engine)[0]
    close_session(engine)
    assert lean_model._is_common(layer)
    kind, attending = type(layer), type(layer.self_attn)

    class Later(kind):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Any, position_ids: Any = None, **more: Any) -> Any:
            return kind.forward(self, hidden_states, **more) * (1 + position_ids.clamp(min=99))

    class Scaled(attending):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Any, **more: Any) -> Any:
            return attending.forward(self, hidden_states * getattr(self.config, "scale"), **more)  # noqa: B009

    layer.__class__ = Later
    assert not lean_model._is_common(layer)
    layer.__class__ = kind
    layer.self_attn.__class__ = Scaled
    assert not lean_model._is_common(layer)
    layer.self_attn.__class__ = attending
    layer.self_attn.q_norm = layer.input_layernorm  # which the code does not call
    assert not lean_model._is_common(layer)
    del layer.self_attn.q_norm

    class More(attending):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Any, attn_scale: Any = 1, **more: Any) -> Any:
            return attending.forward(self, hidden_states * attn_scale, **more)

    layer.self_attn.__class__ = More
    assert not lean_model._is_common(layer)
    layer.self_attn.__class__ = attending
    hook = layer.input_layernorm.register_forward_hook(lambda *_: None)
    assert not lean_model._is_common(layer)
    hook.remove()
    layer.mlp.forward = layer.mlp.forward
    assert not lean_model._is_common(layer)
    del layer.mlp.forward
    layer.forward = layer.forward  # somebody's hook
    assert not lean_model._is_common(layer)
    del layer.forward
    assert lean_model._is_common(layer)


def test_a_decoder_that_names_something_else_is_of_another_kind(load: Load) -> None:
    engine = load("qwen3")
    model = model_of(engine)
    decoder = model.model
    assert lean_model.in_fewer_calls(model) is not None
    kind = type(decoder)

    class Scaled(kind):  # type: ignore[misc, valid-type]
        def forward(self, **more: Any) -> Any:
            return kind.forward(self, **more) * self.config.scale

    decoder.__class__ = Scaled
    assert lean_model.in_fewer_calls(model) is None
    decoder.__class__ = kind
    for part in (decoder, decoder.embed_tokens, decoder.norm, decoder.rotary_emb):
        hook = part.register_forward_pre_hook(lambda *_: None)
        assert lean_model.in_fewer_calls(model) is None
        hook.remove()
    del decoder.layers[-1]
    assert lean_model.in_fewer_calls(model) is None


def test_names_are_of_all_code_inside() -> None:
    def outer(x: Any) -> Any:
        return [getattr(one, "hidden").inner for one in x.several]  # noqa: B009

    assert lean_model._names(outer) == {"getattr", "hidden", "inner", "several"}
    assert lean_model._names(len) == {"?"}
    assert lean_model._names(None) == {"?"}


def test_a_cancelled_pass_of_a_lean_model_ends_at_a_layer(load: Load) -> None:
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
