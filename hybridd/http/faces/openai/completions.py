"""`/v1/completions`: one or more prompts to asks, results to choices. Pure but for the handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.core.fields import Bool, Field, Int, OneOf, Struct, Text
from hybridd.http.faces.api import Answer, Ask, Call, Reply, Streamed
from hybridd.http.faces.openai import logprobs, token_ids
from hybridd.http.faces.openai.completions_stream import CompletionWriter
from hybridd.http.faces.openai.options import (
    ANSWERS,
    GENERATING,
    MOST_ANSWERS,
    answers,
    ask,
    check_format,
    include_usage,
    sampling,
    told_alternatives,
    usage,
)
from hybridd.http.faces.shared import bodies, model_names
from hybridd.http.faces.shared.together import results as all_results
from hybridd.wire.errors import InvalidParams, Unsupported

# Of one request, all prompts together. Those of a stream wait for the model all at once.
_MOST_CHOICES, _MOST_STREAMED = 2048, 256
_FIELDS: Mapping[str, Field] = {
    **GENERATING,
    **ANSWERS,
    "prompt": token_ids.texts_or_tokens(_MOST_CHOICES),
    "suffix": Text(),
    "echo": Bool(),
    "best_of": Int(1, MOST_ANSWERS),
    "logprobs": OneOf((Int(0, 20), Bool())),
    "special": Bool(),
}
BODY = Struct(_FIELDS, required=("model", "prompt"), open=True, what="a completion")


async def completions(call: Call) -> Answer:
    """Go on from one prompt or several, at once or in chunks."""
    body = bodies.read(BODY, call.body)
    check(body)
    model = (await model_names.record(call.daemon, body["model"])).id
    prompts = await token_ids.texts(call, body, "prompt")
    count = body.get("n", 1)
    most = _MOST_STREAMED if body.get("stream") else _MOST_CHOICES
    if len(prompts) * count > most:
        reason = f"times n makes more than {most} choices; send them in several requests"
        raise InvalidParams(f"prompt {reason}", field="prompt", reason=reason)
    echoed = [prompt if body.get("echo") else "" for prompt in prompts for _ in range(count)]
    asks = [
        each
        for prompt in prompts
        for each in answers(_ask(body, prompt, autoload=call.autoload), count)
    ]
    id, created, told = "cmpl-" + call.id.removeprefix("req_"), int(call.created), _told(body)
    if body.get("stream"):
        writer = CompletionWriter(
            id, created, model, echoed, told, answers=count, usage=include_usage(body)
        )
        return Streamed(asks, writer)
    made = await all_results(call, asks)
    return Reply(completion(id, created, made, echoed, told, count))


def check(body: Mapping[str, Any]) -> None:
    """Say what cannot be done, by name.

    Raises:
        Unsupported: That.
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


def _ask(body: Mapping[str, Any], prompt: str, *, autoload: bool) -> Ask:
    request: dict[str, Any] = {"prompt": prompt}
    if body.get("special") or token_ids.given(body["prompt"]):
        # What is special among token ids that were given stays so.
        request["special"] = True
    return ask("generate", body, request, told_alternatives(sampling(body), _told(body)), autoload)


def _told(body: Mapping[str, Any]) -> int | None:
    """How many alternatives are told with each token; None where nothing is told."""
    asked = body.get("logprobs")
    return None if asked is None or asked is False else int(asked)


def completion(
    id: str,
    created: int,
    results: Sequence[Mapping[str, Any]],
    echoed: Sequence[str],
    told: int | None,
    answers: int,
) -> dict[str, Any]:
    """A whole answer, of one result for each choice and what stands before its text.

    Args:
        answers: Choices of each prompt.
    """
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
        "usage": usage(results, answers),
        "timings": results[0].get("timings"),
    }
