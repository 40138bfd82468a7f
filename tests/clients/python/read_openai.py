"""What the `openai` package makes of answers: cases as JSON come in, its readings go out.

A case is `{call, body, answer, media_type}`; `answer` is what a server sends. The network is not
touched.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import httpx
import openai

ASKED: dict[str, Any] = {"model": "m"}
QUESTION = [{"role": "user", "content": "Hi"}]


def chat(client: openai.OpenAI, body: dict[str, Any]) -> Any:
    return client.chat.completions.create(**ASKED, messages=QUESTION, **body).to_dict()


def chat_stream(client: openai.OpenAI, body: dict[str, Any]) -> Any:
    """By the helper, which is strict about ids, indexes and the last chunk."""
    with client.chat.completions.stream(**ASKED, messages=QUESTION, **body) as stream:
        kinds = [event.type for event in stream]
        return {"events": kinds, "final": stream.get_final_completion().to_dict()}


def completion_stream(client: openai.OpenAI, body: dict[str, Any]) -> Any:
    chunks = client.completions.create(**ASKED, prompt="Hi", stream=True, **body)
    return [chunk.to_dict() for chunk in chunks]


def response(client: openai.OpenAI, body: dict[str, Any]) -> Any:
    made = client.responses.create(**ASKED, input="Hi", **body)
    return {"text": made.output_text, "final": made.to_dict()}


def response_stream(client: openai.OpenAI, body: dict[str, Any]) -> Any:
    """By the helper, which puts a response together from its events."""
    with client.responses.stream(**ASKED, input="Hi", **body) as stream:
        kinds = [event.type for event in stream]
        return {"events": kinds, "final": stream.get_final_response().to_dict()}


def response_events(client: openai.OpenAI, body: dict[str, Any]) -> Any:
    events = client.responses.create(**ASKED, input="Hi", stream=True, **body)
    return [event.to_dict() for event in events]


def embeddings(client: openai.OpenAI, body: dict[str, Any]) -> Any:
    return [each.embedding for each in client.embeddings.create(**ASKED, input="Hi", **body).data]


CALLS: dict[str, Callable[[openai.OpenAI, dict[str, Any]], Any]] = {
    each.__name__: each
    for each in (
        chat,
        chat_stream,
        completion_stream,
        response,
        response_stream,
        response_events,
        embeddings,
    )
}


def read(case: dict[str, Any]) -> Any:
    """What the package makes of one answer, or how it fails."""
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        headers = {"content-type": case["media_type"]}
        return httpx.Response(200, headers=headers, content=case["answer"].encode())

    transport = httpx.MockTransport(answer)
    with (
        httpx.Client(transport=transport) as http,
        openai.OpenAI(api_key="k", base_url="http://x/v1", http_client=http, max_retries=0) as made,
    ):
        try:
            return {"sent": sent, "read": CALLS[case["call"]](made, case["body"])}
        except openai.APIError as exc:
            return {"sent": sent, "failed": type(exc).__name__, "message": exc.message}


json.dump([read(case) for case in json.load(sys.stdin)], sys.stdout)
