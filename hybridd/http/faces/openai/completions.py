"""`/v1/completions`: one or more prompts to asks, results to choices. Pure but for the handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.core.fields import Bool, Field, Int, ListOf, OneOf, Struct, Text
from hybridd.core.requests import TOKENS
from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.openai import logprobs
from hybridd.http.faces.openai.completions_stream import CompletionWriter
from hybridd.http.faces.openai.options import (
    GENERATING,
    ask,
    check_format,
    include_usage,
    sampling,
    usage,
)
from hybridd.http.faces.shared import bodies, model_names
from hybridd.http.faces.shared.together import results as all_results
from hybridd.wire.errors import InvalidParams, Unsupported

_MOST_PROMPTS = 2048
_FIELDS: Mapping[str, Field] = {
    **GENERATING,
    "prompt": OneOf(
        (
            Text(),
            ListOf(Text(), min_length=1, max_length=_MOST_PROMPTS),
            TOKENS,
            ListOf(TOKENS, min_length=1, max_length=_MOST_PROMPTS),
        )
    ),
    "suffix": Text(),
    "echo": Bool(),
    "best_of": Int(1, 128),
    "logprobs": OneOf((Int(0, 20), Bool())),
    "special": Bool(),
}
BODY = Struct(_FIELDS, required=("model", "prompt"), open=True, what="a completion")


async def completions(call: Call) -> Answer:
    """Go on from one prompt or several, at once or in chunks."""
    body = bodies.read(BODY, call.body)
    check(body)
    model = (await model_names.record(call.daemon, body["model"])).id
    prompts = await _texts(call, body)
    count = body.get("n", 1)
    echoed = [prompt if body.get("echo") else "" for prompt in prompts for _ in range(count)]
    asks = [_ask(body, prompt, autoload=call.autoload) for prompt in prompts for _ in range(count)]
    id, created, told = "cmpl-" + call.id.removeprefix("req_"), int(call.created), _told(body)
    if body.get("stream"):
        writer = CompletionWriter(id, created, model, echoed, told, usage=include_usage(body))
        return Streamed(asks, writer)
    made = await all_results(call, asks)
    return Reply(completion(id, created, made, echoed, told))


def check(body: Mapping[str, Any]) -> None:
    """Say what cannot be done, by name.

    Raises:
        Unsupported, InvalidParams: That.
    """
    check_format(body.get("response_format"))
    if body.get("suffix"):
        raise Unsupported(
            "filling in before a suffix (suffix) is not supported yet; leave it out",
            capability="infill",
        )
    if body.get("best_of", 1) > body.get("n", 1):
        raise Unsupported(
            "choosing the best of several (best_of) is not supported; ask for n",
            capability="best_of",
        )
    if body.get("echo") and _told(body) is not None:
        raise Unsupported(
            "log probabilities of the prompt (echo with logprobs) are not supported",
            capability="prompt_logprobs",
        )
    if body["prompt"] == []:
        raise InvalidParams("prompt is empty", field="prompt", reason="is empty")


def _ask(body: Mapping[str, Any], prompt: str, *, autoload: bool) -> Ask:
    options = sampling(body)
    if (told := _told(body)) is not None:
        options["logprobs"] = max(1, told)
    request: dict[str, Any] = {"prompt": prompt}
    if body.get("special") or not isinstance(_first(body["prompt"]), str):
        # Token ids were given: what is special among them stays so.
        request["special"] = True
    return ask("generate", body, request, options, autoload)


def _told(body: Mapping[str, Any]) -> int | None:
    """How many alternatives are told with each token; None where nothing is told."""
    asked = body.get("logprobs")
    return None if asked is None or asked is False else int(asked)


async def _texts(call: Call, body: Mapping[str, Any]) -> list[str]:
    """The prompts as texts; tokens are what the model's own tokenizer makes of them."""
    prompt = body["prompt"]
    if isinstance(prompt, str):
        return [prompt]
    lists = [prompt] if isinstance(prompt[0], int) else prompt
    if isinstance(lists[0], str):
        return list(lists)
    asks = [
        Ask("detokenize", body["model"], {"tokens": tokens}, autoload=call.autoload)
        for tokens in lists
    ]
    return [made["text"] for made in await all_results(call, asks)]


def _first(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else prompt[0]


def completion(
    id: str,
    created: int,
    results: Sequence[Mapping[str, Any]],
    echoed: Sequence[str],
    told: int | None,
) -> dict[str, Any]:
    """A whole answer, of one result for each choice and what stands before its text."""
    choices = []
    for index, (result, before) in enumerate(zip(results, echoed, strict=True)):
        entries = result.get("logprobs")
        choices.append(
            {
                "index": index,
                "text": before + result["text"],
                "logprobs": logprobs.of_completion(entries, told or 0, 0) if entries else None,
                "finish_reason": result.get("finish_reason") or "stop",
            }
        )
    return {
        "id": id,
        "object": "text_completion",
        "created": created,
        "model": results[0]["model"],
        "choices": choices,
        "usage": usage(list(results)),
        "timings": results[0].get("timings"),
    }
