"""llama-server's routes, with a manager that is a fake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from hybridd.http.faces.api import SSE, Answer, Ask, Reply, Streamed
from hybridd.http.faces.llamacpp import FACE, answers, handlers, models
from hybridd.http.guard import Policy
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.errors import (
    ContextExceeded,
    InvalidParams,
    ModelNotFound,
    Unsupported,
    WorkerDied,
)
from tests.http.faces.support import TIMINGS, USAGE, Models, record
from tests.http.support import answered

ENDED = {"finish_reason": "stop", "usage": USAGE, "timings": TIMINGS}
ENTRY = {"id": 5, "token": "a", "bytes": [97], "logprob": -0.1, "top_logprobs": []}


def answer(ask: Ask) -> Mapping[str, Any]:
    match ask.kind:
        case "generate":
            return {"model": ask.model, "text": ask.request["prompt"].upper(), **ENDED}
        case "tokenize":
            return {"tokens": [ord(c) for c in ask.request["text"]]}
        case "detokenize":
            return {"text": "".join(map(chr, ask.request["tokens"]))}
    return {"prompt": str(ask.request["messages"])}


def running(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "status": "loaded", "parallel": 2, "context_length": 512, **more}


def daemon(*ids: str, loaded: tuple[Mapping[str, Any], ...] = ()) -> Models:
    return Models(*(record(id) for id in ids or ("m",)), answer=answer, loaded=loaded)


def value(reply: Answer) -> Any:
    assert isinstance(reply, Reply)
    return reply.value


# ------------------------------------------------------------------ which model


async def test_without_a_name_the_only_model_that_is_loaded_is_asked() -> None:
    manager = daemon("a", "b", loaded=(running("b"),))
    told = value(await handlers.completion(manager.call({"prompt": "hi"})))
    assert (told["model"], told["content"]) == ("b", "HI")


@pytest.mark.parametrize(
    ("loaded", "words"), [((), "none is loaded"), ((running("a"), running("b")), "2 are loaded")]
)
async def test_without_a_name_and_a_single_model_one_has_to_be_named(
    loaded: tuple[Mapping[str, Any], ...], words: str
) -> None:
    with pytest.raises(InvalidParams, match=words) as refused:
        await handlers.completion(daemon("a", "b", loaded=loaded).call({"prompt": "hi"}))
    assert refused.value.data["field"] == "model"


async def test_a_name_is_looked_up() -> None:
    manager = daemon("a", loaded=(running("a"),))
    with pytest.raises(ModelNotFound):
        await handlers.completion(manager.call({"model": "none", "prompt": "hi"}))


# ------------------------------------------------------------------ completions


async def test_a_completion_has_llama_servers_fields() -> None:
    told = value(await handlers.completion(daemon().call({"model": "m", "prompt": "hi"})))
    assert told == {
        "index": 0,
        "content": "HI",
        "tokens": [],
        "id_slot": -1,
        "stop": True,
        "model": "m",
        "tokens_predicted": 3,
        "tokens_evaluated": 20,
        "tokens_cached": 8,
        "truncated": False,
        "stop_type": "eos",
        "stopping_word": "",
        "timings": {
            "cache_n": 8,
            "prompt_n": 12,
            "prompt_ms": 125.0,
            "prompt_per_token_ms": pytest.approx(125 / 12),
            "prompt_per_second": pytest.approx(96),
            "predicted_n": 3,
            "predicted_ms": 1000.0,
            "predicted_per_token_ms": pytest.approx(1000 / 3),
            "predicted_per_second": pytest.approx(3),
        },
    }


async def test_several_prompts_are_answered_by_a_list() -> None:
    told = value(await handlers.completion(daemon().call({"model": "m", "prompt": ["a", "b"]})))
    assert [(each["index"], each["content"]) for each in told] == [(0, "A"), (1, "B")]
    one = value(await handlers.completion(daemon().call({"model": "m", "prompt": ["a"]})))
    assert [each["content"] for each in one] == ["A"]


async def test_the_first_error_of_several_ends_the_others() -> None:
    class Failing(Models):
        async def infer(self, ask: Ask) -> dict[str, Any]:
            if ask.request["prompt"] == "b":
                raise WorkerDied("its process ended", model="m")
            await trio.sleep_forever()
            raise AssertionError

    manager = Failing(record("m"))
    with pytest.raises(WorkerDied):
        await handlers.completion(manager.call({"model": "m", "prompt": ["a", "b", "c"]}))


def streamed(*deltas: Delta, result: Mapping[str, Any] = ENDED) -> list[dict[str, Any]]:
    writer = answers.CompletionWriter()
    parts = [writer.begin(), *(writer.delta(1, d) for d in deltas), writer.end(1, result)]
    data = b"".join([*parts, writer.finish()]).decode()
    return [json.loads(each.removeprefix("data: ")) for each in data.split("\n\n") if each]


async def test_a_stream_has_the_index_and_the_text_of_each_prompt() -> None:
    reply = await handlers.completion(
        daemon().call({"model": "m", "prompt": ["a", "b"], "stream": True})
    )
    assert isinstance(reply, Streamed)
    assert (len(reply.asks), reply.writer.media_type) == (2, SSE)
    first, second, last = streamed(Delta('H"', 1), Delta("", 1), Delta("I", 1))
    assert first == {"index": 1, "content": 'H"', "tokens": [], "stop": False, "id_slot": -1}
    assert second["content"] == "I"
    assert last == {
        "index": 1,
        "content": "",
        "tokens": [],
        **answers.ended(ENDED),
    }


async def test_tokens_and_probabilities_come_where_they_are_asked_for() -> None:
    first, _last = streamed(Delta("a", 1, logprobs=[ENTRY]))
    assert (first["tokens"], first["completion_probabilities"]) == ([5], [ENTRY])
    whole = answers.completion(0, {"text": "a", "logprobs": [ENTRY], **ENDED})
    assert (whole["tokens"], whole["completion_probabilities"]) == ([5], [ENTRY])


def test_a_limit_is_told() -> None:
    assert answers.ended({**ENDED, "finish_reason": "length"})["stop_type"] == "limit"


def test_waiting_is_a_comment_and_an_error_is_an_event() -> None:
    writer = answers.CompletionWriter()
    assert writer.waiting("loading m") == b": loading m\n\n"
    told = json.loads(writer.error(Problem(429, "busy", "too much")).removeprefix(b"data: "))
    assert told["error"] == {"code": 429, "message": "too much", "type": "invalid_request_error"}


def test_errors_have_llama_servers_types() -> None:
    long = ContextExceeded("too long", prompt_tokens=9, context_length=4)
    assert answers.error_body(Problem.of(long))["error"] == {
        "code": 400,
        "message": "too long",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 9,
        "n_ctx": 4,
    }
    missing = Unsupported("not yet", capability="infill")
    assert answers.error_body(Problem.of(missing))["error"]["type"] == "not_supported_error"
    assert answers.error_body(Problem(500, "x", "y"))["error"]["type"] == "server_error"


async def test_filling_in_is_not_supported_yet() -> None:
    sent = {"model": "m", "input_prefix": "a", "input_suffix": "b"}
    with pytest.raises(Unsupported) as refused:
        await handlers.infill(daemon().call(sent))
    assert refused.value.data["capability"] == "infill"


# ------------------------------------------------------------------ tokens and templates


async def test_texts_become_tokens_and_tokens_texts() -> None:
    manager = daemon()
    told = value(await handlers.tokenize(manager.call({"model": "m", "content": "ab"})))
    assert told == {"tokens": [97, 98]}
    assert manager.asked[-1].request == {"text": "ab", "special": True}
    sent = {"model": "m", "content": "ab", "parse_special": False}
    await handlers.tokenize(manager.call(sent))
    assert manager.asked[-1].request["special"] is False
    told = value(await handlers.detokenize(manager.call({"model": "m", "tokens": [97, 98]})))
    assert told == {"content": "ab"}
    for name in ("add_special", "with_pieces"):
        with pytest.raises(Unsupported):
            await handlers.tokenize(manager.call({"model": "m", "content": "a", name: True}))


async def test_a_conversation_becomes_a_prompt() -> None:
    manager, said = daemon(), [{"role": "user", "content": "hi"}]
    told = value(await handlers.apply_template(manager.call({"model": "m", "messages": said})))
    assert told == {"prompt": str(said)}
    assert manager.asked[0].request == {
        "messages": said,
        "tools": None,
        "chat_template_kwargs": {},
    }


# ------------------------------------------------------------------ what is read


async def test_props_tell_of_the_model_that_is_loaded() -> None:
    manager = daemon(loaded=(running("m"),))
    manager.settings["m"] = {"options": {"temperature": 0.3}}
    told = value(await models.props(manager.call()))
    assert (told["total_slots"], told["model_alias"], told["is_sleeping"]) == (2, "m", False)
    assert told["default_generation_settings"]["n_ctx"] == 512
    assert told["default_generation_settings"]["params"]["temperature"] == 0.3
    assert told["default_generation_settings"]["params"]["n_predict"] == -1
    asleep = value(await models.props(daemon("a").call(query={"model": "a"})))
    assert asleep["is_sleeping"] is True


async def test_slots_tell_who_is_at_work() -> None:
    loaded = (running("a", active_requests=1), running("b", load_options={"draft_model": "c"}))
    told = value(await models.slots(daemon("a", "b", loaded=loaded).call()))
    assert [(s["id"], s["model"], s["is_processing"], s["speculative"]) for s in told] == [
        (0, "a", True, False),
        (1, "a", False, False),
        (2, "b", False, True),
        (3, "b", False, True),
    ]
    told = value(await models.slots(daemon("a", "b", loaded=loaded).call(query={"model": "b"})))
    assert [s["model"] for s in told] == ["b", "b"]


async def test_where_no_slot_is_free_that_can_be_an_error() -> None:
    loaded = (running("m", active_requests=2),)
    with pytest.raises(Problem) as refused:
        await models.slots(daemon(loaded=loaded).call(query={"fail_on_no_slot": "1"}))
    assert refused.value.status == 503


async def test_health_is_told_without_a_token_and_nothing_else() -> None:
    policy = Policy(frozenset({"localhost"}), frozenset(), "s" * 43)
    got = await answered([FACE], "GET", "/health", policy=policy)
    assert (got.status, got.json) == (200, {"status": "ok"})
    got = await answered([FACE], "GET", "/props", policy=policy)
    assert (got.status, got.json["error"]["type"]) == (401, "authentication_error")
