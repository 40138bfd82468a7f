"""What goes wrong at one request ends that request, and the others of its worker go on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridd.backends.engine.prompts import Prompts
from tests.support_models import Answer, delta_of, loaded_demo

FORMATS = ["gguf", "huggingface"]
PROMPT, BAD_PROMPT = "What is a daemon?", "What is a bad prompt?"
GREEDY = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True}
SAMPLED = {"temperature": 0.8, "seed": 3, "max_tokens": 12, "ignore_eos": True}
WITHOUT_TOP_K = {**SAMPLED, "top_k": 0}


@pytest.fixture(scope="module", params=FORMATS)
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    made, _ = loaded_demo(request.param, context_length=256, parallel=4)
    yield made
    made.close()


def both(engine: Any, options: dict[str, Any]) -> tuple[Answer, Answer]:
    """A good request and a bad one side by side."""
    for key, prompt in ((1, PROMPT), (2, BAD_PROMPT)):
        engine.submit({"id": key, "kind": "generate", "prompt": prompt, "options": options})
    outputs: dict[int, list[Any]] = {1: [], 2: []}
    while engine.busy:
        for output in engine.step():
            outputs[output["id"]].append(output)
    good, bad = (_answer(outputs[key]) for key in (1, 2))
    return good, bad


def _answer(outputs: list[Any]) -> Answer:
    deltas = [delta_of(output).text for output in outputs]
    return Answer(
        "".join(deltas),
        deltas,
        sum(delta_of(output).tokens for output in outputs),
        [],
        next((output["done"] for output in outputs if "done" in output), {}),
        next((output["error"] for output in outputs if "error" in output), {}),
    )


def spoil(engine: Any, patch: pytest.MonkeyPatch, number: float, after: int) -> None:
    """Have the model compute `number`s for the bad request once it has `after` tokens."""

    def spoiled(sequence: Any) -> bool:
        generation = sequence.generation
        return bool(generation.id == 2 and generation.completion_tokens == after)

    if hasattr(engine, "_engine"):
        engine = engine._engine
    if hasattr(engine, "cache"):
        context = engine.context
        plain, next_token = context.logits, engine._next
        spoiling = [False]

        def logits(row: int) -> Any:
            found = plain(row)
            if spoiling[0]:
                found[:] = number
            return found

        def noted(context: Any, sequence: Any, index: int) -> Any:
            spoiling[0] = spoiled(sequence)
            return next_token(context, sequence, index)

        patch.setattr(context, "logits", logits)
        patch.setattr(engine, "_next", noted)
    else:
        next_tokens = engine._next

        def changed(ready: Any, logits: Any) -> Any:
            logits = logits.clone()
            for at, (i, sequence) in enumerate(ready):
                if spoiled(sequence):
                    logits[i if len(ready) != len(logits) else at] = number
            return next_tokens(ready, logits)

        patch.setattr(engine, "_next", changed)


Harm = Callable[[pytest.MonkeyPatch], None]


def harmed(
    engine: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], harm: Harm
) -> Answer:
    """What the bad request gets; the good one beside it, and both afterwards, feel nothing."""
    before = both(engine, options)
    with monkeypatch.context() as patch:
        harm(patch)
        good, bad = both(engine, options)
    assert good.text == before[0].text
    assert good.tokens == 12
    # Nothing of it is gone on from: the same prompt is computed anew, and rightly.
    assert [each.text for each in both(engine, options)] == [each.text for each in before]
    assert not bad.result
    return bad


@pytest.mark.parametrize("options", [GREEDY, SAMPLED, WITHOUT_TOP_K], ids=["greedy", "k", "all"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("after", [0, 5])
def test_a_model_that_computes_no_numbers_says_so(
    engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    number: float,
    after: int,
) -> None:
    bad = harmed(engine, monkeypatch, options, lambda patch: spoil(engine, patch, number, after))
    assert bad.error["data"]["reason"] == "not_finite"
    assert bad.tokens == after


def test_a_prompt_that_cannot_be_tokenized_fails_alone(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Prompts.tokens

    def failing(prompts: Prompts, request: Any) -> list[int]:
        if request["prompt"] == BAD_PROMPT:
            raise LookupError(BAD_PROMPT)
        return tokens(prompts, request)

    bad = harmed(
        engine, monkeypatch, GREEDY, lambda patch: patch.setattr(Prompts, "tokens", failing)
    )
    assert bad.error["data"]["reason"] == "engine_error"
    assert BAD_PROMPT not in bad.error["message"]


def test_a_request_that_cannot_begin_fails_alone(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(type(getattr(engine, "_engine", engine)).__module__)
    sampler, made = module.Sampler, []

    def second_fails(*arguments: Any) -> Any:
        made.append(arguments)
        if len(made) == 2:
            raise MemoryError
        return sampler(*arguments)

    bad = harmed(
        engine, monkeypatch, GREEDY, lambda patch: patch.setattr(module, "Sampler", second_fails)
    )
    assert bad.error["data"]["reason"] == "out_of_memory"


def test_a_step_that_fails_ends_those_that_were_in_it(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = both(engine, GREEDY)
    inner = getattr(engine, "_engine", engine)
    advance, steps = inner._advance, []

    def third_fails(active: Any) -> Any:
        steps.append(len(active))
        outputs = advance(active)
        if len(steps) == 3:
            raise RuntimeError("no kernel for this shape")
        return outputs

    errors, texts = {}, dict.fromkeys(range(6), "")
    with monkeypatch.context() as patch:
        patch.setattr(inner, "_advance", third_fails)
        for key in range(6):
            engine.submit({"id": key, "kind": "generate", "prompt": PROMPT, "options": GREEDY})
        while engine.busy:
            for output in engine.step():
                assert output["id"] not in errors
                texts[output["id"]] += delta_of(output).text
                if "error" in output:
                    errors[output["id"]] = output["error"]["data"]["reason"]
    assert errors == dict.fromkeys(range(4), "engine_error")
    assert texts[4] == texts[5] == before.text
