"""Requests that share forward passes get what each would get alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch  # noqa: TID253 - a test of what runs in workers

from hybridd.backends.huggingface.engine.compat.auto_classes import AutoModelForCausalLM
from hybridd.backends.huggingface.engine.forward.batched import BatchSession
from hybridd.backends.huggingface.engine.generator import HuggingFaceEngine
from tests.make_transformers import make
from tests.support_models import delta_of, ignore_progress, spec_for

BATCHED = ["llama", "qwen2", "gemma2", "gemma3", "mistral", "mixtral", "gpt_oss"]
# Logits that are nearer to each other than this may change places: the same sums are made in
# another order. docs/huggingface.md says so.
TIE = 1e-3

Build = Callable[..., "Subject"]


class Subject:
    """An engine, and the same model under transformers alone."""

    def __init__(self, path: Path, **load_options: Any) -> None:
        self.engine = HuggingFaceEngine()
        self.facts = self.engine.load(
            spec_for(path, "huggingface", **load_options), ignore_progress
        )
        self._plain = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32).eval()
        self._known: dict[tuple[int, ...], list[tuple[int, float, float]]] = {}

    @property
    def session(self) -> Any:
        return self.engine._session

    def alone(self, prompt: Sequence[int], count: int) -> list[tuple[int, float, float]]:
        """Greedy tokens by transformers: id, log probability, how far ahead of the next one."""
        known = self._known.setdefault(tuple(prompt), [])
        loaded = self.session.loaded
        ends = [token for token in loaded.end_tokens if token < loaded.vocabulary.vocab_size]
        with torch.inference_mode():
            while len(known) < count:
                ids = torch.tensor([[*prompt, *(token for token, _, _ in known)]])
                logits = self._plain(input_ids=ids).logits[0, -1]
                logs = torch.log_softmax(logits.double(), -1)
                logits[ends] = -torch.inf
                best = torch.topk(logits, 2)
                token = int(best.indices[0])
                gap = float(best.values[0] - best.values[1])
                known.append((token, float(logs[token]), gap))
        return known[:count]

    def check(self, prompt: Sequence[int], got: Sequence[dict[str, Any]]) -> None:
        for (token, logprob, gap), entry in zip(self.alone(prompt, len(got)), got, strict=True):
            if entry["id"] != token and gap < TIE:
                return  # from here on two texts are right
            assert entry["id"] == token
            assert entry["logprob"] == pytest.approx(logprob, abs=TIE)

    def prompt_tokens(self, text: str) -> list[int]:
        vocabulary = self.session.loaded.vocabulary
        return [*vocabulary.prefix, *vocabulary.encode(text, False)]

    def submit(self, request_id: int, text: str, **options: Any) -> None:
        complete = {"temperature": 0, "ignore_eos": True, "logprobs": 1, **options}
        self.engine.submit(
            {"id": request_id, "kind": "generate", "prompt": text, "options": complete}
        )

    def run(self, texts: Sequence[str], **options: Any) -> list[dict[str, Any]]:
        """All at once, to their ends; each one's `done` with its `logprobs`."""
        for i, text in enumerate(texts):
            self.submit(i, text, **options)
        made: list[dict[str, Any]] = [{"logprobs": []} for _ in texts]
        while self.engine.busy:
            for output in self.engine.step():
                made[output["id"]]["logprobs"] += delta_of(output).logprobs or []
                made[output["id"]] |= output.get("done", output.get("error", {}))
        return made


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    made: dict[Any, Subject] = {}

    def subject(family: str, **load_options: Any) -> Subject:
        key = (family, *sorted(load_options.items()))
        if key not in made:
            path = make(family, tmp_path_factory.mktemp(family))
            made[key] = Subject(path, **load_options)
        return made[key]

    yield subject
    for one in made.values():
        one.engine.close()


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 12),  # steps before it joins
        st.text("ab é世", min_size=1, max_size=70),
        st.integers(1, 12),  # tokens
        st.sampled_from([None, None, None, 0, 3]),  # steps after which it is cancelled
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("family", BATCHED)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS)
def test_each_gets_what_it_would_get_alone(
    build: Build, family: str, requests: list[tuple[int, str, int, int | None]]
) -> None:
    subject = build(family, parallel=3, ubatch_size=16, context_length=300)
    engine = subject.engine
    got: dict[int, list[dict[str, Any]]] = {i: [] for i in range(len(requests))}
    ended: set[int] = set()
    waiting = dict(enumerate(requests))
    step = 0
    while waiting or engine.busy:
        for i in [i for i, request in waiting.items() if request[0] <= step]:
            _, text, count, _ = waiting.pop(i)
            subject.submit(i, text, max_tokens=count)
        for i, (joins, _, _, cancelled) in enumerate(requests):
            if cancelled is not None and step == joins + cancelled and i not in ended:
                waiting.pop(i, None)
                engine.cancel(i)
                ended.add(i)
        for output in engine.step():
            assert output["id"] not in ended
            got[output["id"]] += delta_of(output).logprobs or []
            if "done" in output:
                ended.add(output["id"])
        step += 1
    assert ended == set(got)
    for i, (_, text, count, cancelled) in enumerate(requests):
        assert cancelled is not None or len(got[i]) == count
        subject.check(subject.prompt_tokens(text), got[i])


def test_the_families_share_forward_passes(build: Build) -> None:
    for family in BATCHED:
        subject = build(family, parallel=3, ubatch_size=16, context_length=300)
        assert isinstance(subject.session, BatchSession)
        assert subject.facts["parallel"] == 3


def test_a_long_prompt_holds_up_nobody_for_longer_than_a_chunk(build: Build) -> None:
    subject = build("llama", parallel=3, ubatch_size=16, context_length=300)
    subject.submit(1, "b", max_tokens=40)
    subject.engine.step()
    subject.submit(2, "ab é世 " * 20, max_tokens=1)
    chunks = len(subject.prompt_tokens("ab é世 " * 20)) // 16
    assert chunks > 4
    for _ in range(chunks):
        outputs = subject.engine.step()
        assert [output["id"] for output in outputs] == [1]
    subject.engine.cancel(1)
    subject.engine.cancel(2)


def test_a_seed_draws_the_same_in_company(build: Build) -> None:
    subject = build("llama", parallel=3, ubatch_size=16, context_length=300)
    options = {"temperature": 1.0, "top_k": 0, "seed": 5, "max_tokens": 10}
    alone = subject.run(["a seed"], **options)[0]["logprobs"]
    for many in (["a seed", "b", "ab " * 30], ["ab " * 20, "a seed"]):
        company = subject.run(many, **options)[many.index("a seed")]["logprobs"]
        assert [entry["id"] for entry in company] == [entry["id"] for entry in alone]


# ---------------------------------------------------------------- prefixes


def test_the_next_turn_computes_only_what_is_new(build: Build) -> None:
    subject = build("qwen2", parallel=3, ubatch_size=16, context_length=300)
    first = "ab é世 " * 5
    subject.run([first], max_tokens=1)
    for text in (first + " and more", first + " and other", first):
        done = subject.run([text], max_tokens=6)[0]
        prompt = subject.prompt_tokens(text)
        shared = len(subject.prompt_tokens(first))
        assert shared - 2 <= done["usage"]["cached_tokens"] < len(prompt)
        subject.check(prompt, done["logprobs"])


def test_a_running_request_lends_its_beginning(build: Build) -> None:
    subject = build("gemma3", parallel=3, ubatch_size=16, context_length=300)
    beginning = "世 éab " * 6
    subject.submit(9, beginning + "x", max_tokens=30)
    for _ in range(8):
        subject.engine.step()
    subject.submit(1, beginning + "yz", max_tokens=4)
    entries: list[dict[str, Any]] = []
    done: dict[str, Any] = {}
    while subject.engine.busy:
        for output in subject.engine.step():
            if output["id"] == 1:
                entries += delta_of(output).logprobs or []
                done |= output.get("done", {})
    assert done["usage"]["cached_tokens"] > 20
    subject.check(subject.prompt_tokens(beginning + "yz"), entries)


def test_a_cancelled_prompt_leaves_what_was_computed(build: Build) -> None:
    subject = build("llama", parallel=3, ubatch_size=16, context_length=300)
    text = "é世 cancelled " * 8
    asked: list[int] = []

    def interrupted(request_id: int) -> bool:
        asked.append(request_id)
        return len(asked) > 4  # in the second chunk

    subject.engine.set_interrupted(interrupted)
    subject.submit(1, text, max_tokens=3)
    assert subject.engine.step() == []
    assert subject.engine.step() == []
    assert len(asked) == 5
    subject.engine.cancel(1)
    subject.engine.set_interrupted(lambda _request_id: False)
    assert not subject.engine.busy
    done = subject.run([text], max_tokens=5)[0]
    assert done["usage"]["cached_tokens"] == 16
    subject.check(subject.prompt_tokens(text), done["logprobs"])


def test_a_pass_goes_on_for_its_greater_part(build: Build) -> None:
    """Who left is less than half of it; where it is more, nobody gets further."""
    subject = build("llama", parallel=3, ubatch_size=64, context_length=256)
    engine, short, long = subject.engine, "ab", "b ab ab ab ab"
    alone = subject.run([long], max_tokens=4)[0]["logprobs"]
    subject.session._cache._kept.clear()
    engine.set_interrupted(lambda request_id: request_id == 8)
    subject.submit(8, short, max_tokens=4)
    subject.submit(9, long, max_tokens=4)
    assert {output["id"] for output in engine.step()} >= {9}
    engine.cancel(8)
    engine.cancel(9)
    subject.session._cache._kept.clear()
    engine.set_interrupted(lambda request_id: request_id == 9)
    subject.submit(8, short, max_tokens=4)
    subject.submit(9, long, max_tokens=4)
    assert engine.step() == []
    engine.cancel(9)
    engine.cancel(8)
    engine.set_interrupted(lambda _request_id: False)
    again = subject.run([long], max_tokens=4)[0]["logprobs"]
    assert [entry["id"] for entry in again] == [entry["id"] for entry in alone]


@contextmanager
def nan_token(session: Any) -> Iterator[None]:
    """The model's vector of 世 is NaN, and nothing is kept of before."""
    bad = session.loaded.vocabulary.encode("世", False)[0]
    vectors = session.loaded.model.model.embed_tokens.weight.data
    before = vectors[bad].clone()
    vectors[bad] = torch.nan
    session._cache._kept.clear()
    try:
        yield
    finally:
        vectors[bad] = before


@pytest.mark.parametrize("at_layer", [False, True])
def test_a_cancelled_prompt_leaves_no_nan_to_others(build: Build, at_layer: bool) -> None:
    """A token of the model is NaN, which nobody sees before the prompt is done."""
    subject = build("llama", parallel=3, ubatch_size=16, context_length=256)
    engine, session = subject.engine, subject.session
    texts = ["ab", "b ab ab ab ab"]
    alone = [done["logprobs"] for done in subject.run(texts, max_tokens=6)]
    asked: list[int] = []

    def interrupted(request_id: int) -> bool:
        asked.append(request_id)
        return at_layer and len(asked) > 1  # in the second layer

    engine.set_interrupted(interrupted)
    with nan_token(session):
        subject.submit(9, "世" * 3 + "ab " * 20, max_tokens=3)
        assert engine.step() == []
        engine.cancel(9)
        engine.set_interrupted(lambda _request_id: False)
        for _ in range(3):
            for done, logprobs in zip(subject.run(texts, max_tokens=6), alone, strict=True):
                assert [e["id"] for e in done["logprobs"]] == [e["id"] for e in logprobs]


def test_a_cancelled_prompt_that_began_as_another_leaves_no_nan(build: Build) -> None:
    """It was given cells that are NaN, and had none of its own computed."""
    subject = build("llama", parallel=3, ubatch_size=16, context_length=256)
    engine, session = subject.engine, subject.session
    texts = ["ab", "b ab ab ab ab", "é ab"]
    alone = [done["logprobs"] for done in subject.run(texts, max_tokens=6)]
    with nan_token(session):
        for request_id in (8, 9):  # each step is the first one's
            subject.submit(request_id, "世" * 3 + "ab " * 60, max_tokens=3)
            assert engine.step() == []
        assert session._cache._running[1].length >= 16
        engine.cancel(9)
        engine.cancel(8)
        for _ in range(3):
            for done, logprobs in zip(subject.run(texts, max_tokens=6), alone, strict=True):
                assert [e["id"] for e in done["logprobs"]] == [e["id"] for e in logprobs]


# ---------------------------------------------------------------- taking turns


@pytest.mark.parametrize(
    ("family", "memory"),
    [
        ("mamba", "GIVEN"),
        ("llama_dynamic", "GIVEN"),
        ("bamba", "GIVEN"),  # it has to be told where a pass begins
        ("minimax", "OWN"),  # it refuses transformers' cache
        ("rwkv", "OWN"),
        ("roberta", "GIVEN"),  # wrong when told that it begins at zero
        ("openai_gpt", "NONE"),
        ("recurrent_gemma", "NONE"),  # the memory is the model's, not a row's
    ],
)
def test_what_cannot_share_takes_turns(build: Build, family: str, memory: str) -> None:
    subject = build(family, parallel=3, ubatch_size=4, context_length=300)
    assert subject.session._memory.name == memory
    assert subject.facts["parallel"] == subject.facts["load_options"]["parallel"] == 3
    assert subject.session.reason
    texts = ["ab é世", "b a", "ab é世 and more"]
    for text, done in zip(texts, subject.run(texts, max_tokens=5), strict=True):
        subject.check(subject.prompt_tokens(text), done["logprobs"])
    assert not subject.engine.busy


def test_turns_continue_a_conversation(build: Build) -> None:
    subject = build("llama_dynamic", parallel=3, ubatch_size=4, context_length=300)
    first = "ab é世 ab"
    subject.run([first], max_tokens=1)
    done = subject.run([first + " and more"], max_tokens=5)[0]
    prompt = subject.prompt_tokens(first)
    assert done["usage"]["cached_tokens"] == len(prompt)
    subject.check(subject.prompt_tokens(first + " and more"), done["logprobs"])


def test_an_interrupted_turn_takes_nothing_from_others(build: Build) -> None:
    subject = build("llama_dynamic", parallel=3, ubatch_size=4, context_length=300)
    got: list[dict[str, Any]] = []

    def step() -> None:
        for output in subject.engine.step():
            got.extend(delta_of(output).logprobs or [])

    subject.submit(1, "ab", max_tokens=20)
    while not got:
        step()
    subject.submit(2, "é世 cancelled", max_tokens=3)
    subject.engine.set_interrupted(lambda request_id: request_id == 2)
    step()
    subject.engine.cancel(2)
    subject.engine.set_interrupted(lambda _request_id: False)
    while subject.engine.busy:
        step()
    assert len(got) == 20
    subject.check(subject.prompt_tokens("ab"), got)


def test_an_interrupted_row_is_not_continued(build: Build) -> None:
    subject = build("llama_dynamic", parallel=3, ubatch_size=4, context_length=300)
    subject.engine.set_interrupted(lambda _request_id: True)
    subject.submit(1, "é世 cancelled", max_tokens=3)
    assert subject.engine.step() == []
    subject.engine.cancel(1)
    subject.engine.set_interrupted(lambda _request_id: False)
    done = subject.run(["é世 cancelled"], max_tokens=5)[0]
    assert done["usage"]["cached_tokens"] == 0
    subject.check(subject.prompt_tokens("é世 cancelled"), done["logprobs"])
