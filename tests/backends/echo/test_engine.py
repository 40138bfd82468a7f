"""The echo engine: what an engine has to do, on the smallest one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.api import LoadCancelled
from hybridd.backends.echo.engine.generator import EchoEngine, from_id, pieces, to_id
from hybridd.wire.errors import InvalidParams, LoadFailed, ModelInvalid, Unsupported
from tests.support_models import ask, collect, ignore_progress, spec_for, user


def loaded(directory: Path, file: dict[str, Any] | None = None, **options: Any) -> EchoEngine:
    path = directory / "model.echo"
    path.write_text(json.dumps(file or {}))
    engine = EchoEngine()
    engine.load(spec_for(path, "echo", **options), ignore_progress)
    return engine


@given(st.text())
def test_pieces_keep_every_byte_and_ids_can_be_turned_back(text: str) -> None:
    cut = pieces(text)
    assert b"".join(cut) == text.encode("utf-8", "replace")
    assert [from_id(to_id(piece)) for piece in cut] == cut


def test_generate_echoes_a_word_a_token(tmp_path: Path) -> None:
    answer = ask(loaded(tmp_path), prompt="one  two\n three ")
    assert answer.deltas[:-1] == ["one", "  two", "\n three", " "]
    assert answer.text == "one  two\n three "
    assert answer.result["finish_reason"] == "stop"
    assert answer.result["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 4,
        "cached_tokens": 0,
    }
    assert set(answer.result["timings"]) == {"prompt_s", "first_token_s", "generation_s"}


def test_chat_echoes_the_last_user(tmp_path: Path) -> None:
    engine = loaded(tmp_path)
    messages = [*user("first"), {"role": "assistant", "content": "x"}, *user("second one")]
    assert ask(engine, "chat", messages=messages).text == "second one"
    prompt = ask(engine, "apply_template", messages=user("a")).result["prompt"]
    assert prompt == "user: a\nassistant:"


def test_a_reply_of_its_own(tmp_path: Path) -> None:
    assert ask(loaded(tmp_path, {"reply": "as you like"}), prompt="x").text == "as you like"


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"max_tokens": 2}, "a b", "length"),
        ({"max_tokens": 0}, "", "length"),
        ({"max_tokens": 3}, "a b c", "length"),
        ({"stop": [" b"]}, "a", "stop"),
        ({"stop": ["c"]}, "a b ", "stop"),
        ({"ignore_eos": True, "max_tokens": 5}, "a b ca b", "length"),
    ],
)
def test_limits(tmp_path: Path, options: dict[str, Any], text: str, reason: str) -> None:
    answer = ask(loaded(tmp_path), prompt="a b c", options=options)
    assert (answer.text, answer.result["finish_reason"]) == (text, reason)


def test_the_context_is_a_limit(tmp_path: Path) -> None:
    engine = loaded(tmp_path, {"context_length": 5})
    answer = ask(engine, prompt="a b c", options={"ignore_eos": True, "max_tokens": 99})
    assert (answer.text, answer.result["finish_reason"]) == ("a b", "length")
    answer = ask(engine, prompt="a b c d e")
    assert answer.deltas == [""]
    assert answer.error["data"] == {
        "kind": "context_exceeded",
        "prompt_tokens": 5,
        "context_length": 5,
    }


def test_tokenize_and_back(tmp_path: Path) -> None:
    engine = loaded(tmp_path)
    tokens = ask(engine, "tokenize", text="né 世").result["tokens"]
    assert len(tokens) == 2
    assert ask(engine, "detokenize", tokens=tokens).result == {"text": "né 世"}
    assert ask(engine, "detokenize", tokens=[3]).error["data"]["kind"] == "invalid_params"
    with pytest.raises(InvalidParams):
        from_id(-1)


def test_unknown_kind(tmp_path: Path) -> None:
    error = ask(loaded(tmp_path), "dance", text="x").error
    assert error["data"] == {"kind": "unsupported", "capability": "dance", "format": "echo"}


def test_requests_run_beside_each_other_up_to_parallel(tmp_path: Path) -> None:
    engine = loaded(tmp_path, parallel=2)
    for request_id in (1, 2, 3):
        engine.submit({"id": request_id, "kind": "generate", "prompt": "a b"})
    assert [output["id"] for output in engine.step()] == [1, 2]
    engine.cancel(1)
    assert [output["id"] for output in engine.step()] == [2, 3]
    engine.cancel(99)
    assert collect(engine, 3).text == " b"
    assert not engine.busy


def test_a_waiting_request_can_be_cancelled(tmp_path: Path) -> None:
    engine = loaded(tmp_path)
    for request_id in (1, 2):
        engine.submit({"id": request_id, "kind": "generate", "prompt": "a b"})
    engine.step()
    engine.cancel(2)
    assert collect(engine, 2).deltas == []


def test_nobody_waits_for_a_delay_that_nobody_wants(tmp_path: Path) -> None:
    engine = loaded(tmp_path, {"token_delay_s": 3600})
    engine.set_interrupted(lambda request_id: request_id == 1)
    engine.submit({"id": 1, "kind": "generate", "prompt": "a b"})
    engine.step()


def test_progress_and_cancel_of_a_load(tmp_path: Path) -> None:
    path = tmp_path / "model.echo"
    path.write_text('{"load_steps": 3, "load_s": 3600}')
    seen: list[tuple[str, int, int]] = []

    def report(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        if len(seen) == 2:
            raise LoadCancelled

    with pytest.raises(LoadCancelled):
        EchoEngine().load(spec_for(path, "echo"), report)
    assert seen[0] == ("load", 0, 3)


def test_loads_that_fail(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        loaded(tmp_path, {"fail": "no luck"})
    assert caught.value.data["reason"] == "no luck"
    with pytest.raises(Unsupported):
        loaded(tmp_path, quantization="int8")
    with pytest.raises(LoadFailed):
        EchoEngine().load(spec_for(tmp_path / "none.echo", "echo"), ignore_progress)
    for content in (b"{", b"[]", b"x" * 70_000):
        (tmp_path / "bad.echo").write_bytes(content)
        with pytest.raises(ModelInvalid):
            EchoEngine().load(spec_for(tmp_path / "bad.echo", "echo"), ignore_progress)


def test_logprobs(tmp_path: Path) -> None:
    answer = ask(loaded(tmp_path), prompt="a b", options={"logprobs": 2})
    assert [entry["token"] for entry in answer.logprobs] == ["a", " b"]
    assert not ask(loaded(tmp_path), prompt="a b").logprobs
