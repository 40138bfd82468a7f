"""PEFT adapters: several on one base model, chosen by each request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.api import Engine
from hybridd.wire.errors import HybriddError, Unsupported
from tests.support_models import (
    DEMO_HUGGINGFACE,
    ask,
    collect,
    delta_of,
    ignore_progress,
    make_engine,
    spec_for,
)

peft = pytest.importorskip("peft", reason="the extra adapters is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tiny = pytest.importorskip("tests.make_huggingface")
transformers.utils.logging.disable_progress_bar()  # its monitor is a thread that stays

# peft 0.21 asks transformers 5 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
PROMPT = "To load a model,"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 16, "ignore_eos": True}


def adapter(path: Path, seed: int, **more: Any) -> Path:
    """An adapter with weights that change what the demo model says."""
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_HUGGINGFACE, dtype=torch.float32)
    return saved(model, path, seed, target_modules=["q_proj", "down_proj"], **more)


def saved(model: Any, path: Path, seed: int, **config: Any) -> Path:
    """An adapter of random weights for `model`."""
    torch.manual_seed(seed)
    lora = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, **config)
    made = peft.get_peft_model(model, lora)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    made.save_pretrained(path)
    return path


def opened(*paths: Path, model: Path = DEMO_HUGGINGFACE, parallel: int = 3) -> Engine:
    named = [{"name": path.name, "path": str(path)} for path in paths]
    engine = make_engine("huggingface")
    ids = [{"name": one["name"], "path_or_id": one["name"]} for one in named]
    spec = spec_for(model, "huggingface", adapters=ids, parallel=parallel)
    spec["adapters"] = named
    engine.load(spec, ignore_progress)
    return engine


def said(engine: Engine, *adapters: tuple[str, float]) -> list[int]:
    chosen = [{"name": name, "scale": scale} for name, scale in adapters]
    answer = ask(engine, prompt=PROMPT, options={**GREEDY, "logprobs": 1, "adapters": chosen})
    return [entry["id"] for entry in answer.logprobs]


def expected(path: Path | None, scale: float = 1.0) -> list[int]:
    """What peft and transformers say by themselves."""
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_HUGGINGFACE, dtype=torch.float32)
    if path is not None:
        model = peft.PeftModel.from_pretrained(model, path)
        for layer in model.modules():
            if hasattr(layer, "set_scale"):
                layer.set_scale("default", scale)
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO_HUGGINGFACE)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.inference_mode():
        for _ in range(16):
            logits = model.eval()(input_ids=ids).logits[0, -1]
            logits[tokenizer.eos_token_id] = -torch.inf  # as ignore_eos has it
            ids = torch.cat([ids, logits.argmax().view(1, 1)], 1)
    return [int(token) for token in ids[0, -16:]]


def test_each_request_has_the_adapters_that_it_names(tmp_path: Path) -> None:
    one, two = adapter(tmp_path / "one", 1), adapter(tmp_path / "two", 2)
    engine = opened(one, two)
    plain = said(engine)
    assert plain == expected(None)
    assert said(engine, ("one", 1.0)) == expected(one)
    assert said(engine, ("two", 1.0)) == expected(two)
    assert said(engine, ("two", 0.5)) == expected(two, 0.5)
    assert said(engine, ("one", 1.0), ("two", 1.0)) not in (expected(one), expected(two))
    assert said(engine) == plain, "what other adapters computed is not used again"
    assert len({tuple(expected(one)), tuple(expected(two)), tuple(plain)}) == 3
    repeated = ask(engine, prompt=PROMPT, options={**GREEDY, "adapters": []})
    assert repeated.result["usage"]["cached_tokens"] == 0


def test_requests_share_passes_with_those_that_have_the_same_adapters(tmp_path: Path) -> None:
    paths = [adapter(tmp_path / name, seed) for seed, name in enumerate(("one", "two"), 1)]
    engine = opened(*paths, parallel=6)
    choices: list[tuple[tuple[str, float], ...]] = [
        (),
        (("one", 1.0),),
        (("two", 1.0),),
        (("one", 1.0),),
        (("one", 0.5),),
        (),
    ]
    prompts = [f"{PROMPT} {word}" for word in ("the", "a", "this", "that", "one", "some")]
    requests: list[Any] = [
        {
            "id": number,
            "kind": "generate",
            "prompt": prompts[number],
            "options": {**GREEDY, "adapters": [{"name": n, "scale": x} for n, x in chosen]},
        }
        for number, chosen in enumerate(choices)
    ]
    alone = [collect_one(opened(*paths), request) for request in requests]
    rows = counted_rows(engine)
    texts = dict.fromkeys(range(len(choices)), "")
    for request in requests:
        engine.submit(request)
    while engine.busy:
        for output in engine.step():
            assert "error" not in output
            texts[output["id"]] += delta_of(output).text
    assert list(texts.values()) == alone
    # One pass in each step for each of the four choices, whoever has it.
    assert rows == [2, 2, 1, 1] * GREEDY["max_tokens"]


def collect_one(engine: Engine, request: Any) -> str:
    text = ""
    engine.submit(request)
    while engine.busy:
        text += "".join(delta_of(output).text for output in engine.step())
    return text


def session_of(engine: Any) -> Any:
    return engine._engine._session


def counted_rows(engine: Engine) -> list[int]:
    """How many rows each pass from now on has."""
    session, counts = session_of(engine), list[int]()
    forward = session.forward

    def counting(works: Any, abort: Any = None) -> Any:
        counts.append(len(works))
        return forward(works, abort)

    session.forward = counting
    return counts


def test_a_beginning_is_used_again_with_the_same_adapters_only(tmp_path: Path) -> None:
    engine = opened(adapter(tmp_path / "one", 1))
    long = f"{PROMPT} it is read from the disk and put where there is room for it,"

    def cached(ending: str, *chosen: str) -> int:
        options = {**GREEDY, "adapters": [{"name": name} for name in chosen]}
        usage = ask(engine, prompt=long + ending, options=options).result["usage"]
        return int(usage["cached_tokens"])

    assert cached(" one") == 0
    assert cached(" two", "one") == 0
    assert cached(" three", "one") > 8
    assert cached(" four") > 8


def test_a_pass_that_fails_ends_only_those_that_were_in_it(tmp_path: Path) -> None:
    engine = opened(adapter(tmp_path / "one", 1))
    session = session_of(engine)
    plain = ask(engine, prompt=PROMPT, options=GREEDY).text
    forward = session.forward

    def failing(works: Any, abort: Any = None) -> Any:
        if works[0][0].adapters:
            raise RuntimeError("no memory for it")
        return forward(works, abort)

    session.forward = failing
    texts, errors = {1: "", 2: ""}, []
    for number, chosen in ((1, []), (2, [{"name": "one"}])):
        options = {**GREEDY, "adapters": chosen}
        request: Any = {"id": number, "kind": "generate", "prompt": PROMPT, "options": options}
        engine.submit(request)
    while engine.busy:
        for output in engine.step():
            texts[output["id"]] += delta_of(output).text
            errors += [output["id"]] if "error" in output else []
    assert errors == [2]
    assert texts[1] == plain


def test_an_encoder_decoder_with_an_adapter_says_what_peft_makes_of_it(tmp_path: Path) -> None:
    path = tiny.t5(tmp_path / "m")
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32)
    targets = ["q", "v"]
    one = saved(base, tmp_path / "one", 1, target_modules=targets)
    engine = opened(one, model=path)
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "logprobs": 1}
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    inputs = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    said = []
    for chosen in ([], ["one"], []):
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(model, one) if chosen else model
        made = model.eval().generate(**inputs, do_sample=False, max_new_tokens=9, min_new_tokens=9)
        named = {**options, "adapters": [{"name": name} for name in chosen]}
        answer = ask(engine, prompt=PROMPT, options=named)
        said.append([entry["id"] for entry in answer.logprobs])
        assert said[-1] == [int(token) for token in made[0]][1 : 1 + len(said[-1])]
    assert said[0] == said[2] != said[1]


def test_what_was_not_loaded_is_refused(tmp_path: Path) -> None:
    engine = opened(adapter(tmp_path / "one", 1))
    options = {**GREEDY, "adapters": [{"name": "other", "scale": 1.0}]}
    error = ask(engine, prompt=PROMPT, options=options).error
    assert error["data"]["kind"] == "invalid_params"
    assert "was loaded with one" in error["message"]
    plain = make_engine("huggingface")
    plain.load(spec_for(DEMO_HUGGINGFACE, "huggingface"), ignore_progress)
    error = ask(plain, prompt=PROMPT, options=options).error
    assert error["data"]["kind"] == "invalid_params"
    assert "load_options.adapters" in error["message"]
    assert collect(plain, 1).text == ""


def test_an_adapter_of_another_model_or_without_safetensors(tmp_path: Path) -> None:
    path = adapter(tmp_path / "one", 1)
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(HybriddError, match="pickles") as caught:
        opened(path)
    assert caught.value.kind == "model_invalid"
    (path / "adapter_model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(HybriddError, match="does not fit"):
        opened(path)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"bias": "lora_only"}, "biases of its own"),
        ({"init_lora_weights": "pissa_niter_4"}, "begun by taking a part"),
        ({"init_lora_weights": "OLoRA"}, "begun by taking a part"),
        ({"layer_replication": [[0, 4], [2, 6]]}, "repeats layers"),
        # Nor would this one count for the requests that name it.
        ({"alora_invocation_tokens": [5, 6]}, "activated LoRA"),
    ],
)
def test_an_adapter_that_would_change_the_base_model_is_refused(
    tmp_path: Path, more: dict[str, Any], reason: str
) -> None:
    one = adapter(tmp_path / "one", 1)
    said = json.loads((one / "adapter_config.json").read_text())
    (one / "adapter_config.json").write_text(json.dumps({**said, **more}))
    with pytest.raises(Unsupported, match=reason):
        opened(one)


@pytest.mark.parametrize("kind", ["modules_to_save", "trainable_token_indices"])
def test_of_two_adapters_that_replace_the_same_a_request_has_one(tmp_path: Path, kind: str) -> None:
    config: dict[str, Any] = {
        "modules_to_save": {"modules_to_save": ["norm"]},
        "trainable_token_indices": {"trainable_token_indices": [5, 6]},
    }[kind]
    one = adapter(tmp_path / "one", 1, **config)
    two = adapter(tmp_path / "two", 2, **config)
    engine = opened(one, two)
    plain = ask(engine, prompt=PROMPT, options=GREEDY)
    both = [{"name": "one"}, {"name": "two"}]
    engine.submit({"id": 2, "kind": "generate", "prompt": PROMPT, "options": GREEDY})
    error = ask(engine, prompt=PROMPT, options={**GREEDY, "adapters": both}).error
    assert error["data"]["field"] == "options.adapters"
    assert said(engine, ("one", 1.0)) == expected(one)
    assert ask(engine, prompt=PROMPT, options=GREEDY).text == plain.text


def test_a_choice_that_fails_halfway_is_in_no_other_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = opened(adapter(tmp_path / "one", 1))
    plain = said(engine)
    tuner = engine._engine._adapters._tuner._peft.base_model
    set_adapter = tuner.set_adapter

    def failing(names: list[str]) -> None:
        set_adapter(names)
        raise ValueError("a layer that would not")

    with monkeypatch.context() as patch:
        patch.setattr(tuner, "set_adapter", failing)
        options = {**GREEDY, "adapters": [{"name": "one"}]}
        error = ask(engine, prompt=PROMPT, options=options).error
    assert error["data"]["reason"] == "engine_error"
    assert said(engine) == plain
    assert said(engine, ("one", 1.0)) == expected(tmp_path / "one")
