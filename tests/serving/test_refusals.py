"""What is refused before any work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hybridd.backends.data_urls import MAX_ENCODED_BYTES, MAX_PICTURES
from hybridd.backends.registry import load_backends
from hybridd.core.kinds import KINDS
from hybridd.core.model import ModelRecord
from hybridd.serving.refusals import check_kind
from hybridd.serving.refusals import check_wishes as check
from hybridd.wire import errors
from tests.serving.support import record

PICTURE = "data:image/png;base64,aGVsbG8="


BACKENDS = load_backends()


def check_wishes(record: ModelRecord, request: dict[str, Any], options: dict[str, Any]) -> None:
    check(record, BACKENDS[record.format], request, options)


def model(format_name: str, *capabilities: str) -> ModelRecord:
    made = record("m")
    return replace(
        made, facts=replace(made.facts, format=format_name, capabilities=("chat", *capabilities))
    )


def chat(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def image(url: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


SOUND = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}


@pytest.mark.parametrize(
    ("of", "part", "capability", "words"),
    [
        (("huggingface",), image(PICTURE), "vision", "reads no pictures"),
        (("gguf",), image(PICTURE), "vision", "reads no pictures"),
        (("gguf", "vision"), image(PICTURE), "vision", "not supported for gguf models yet"),
        (("huggingface", "vision"), SOUND, "audio", "reads no sound"),
        (("huggingface", "audio"), SOUND, "audio", "not supported for huggingface models yet"),
    ],
)
def test_parts_that_nobody_reads(
    of: tuple[str, ...], part: dict[str, Any], capability: str, words: str
) -> None:
    with pytest.raises(errors.Unsupported, match=words) as caught:
        check_wishes(model(*of), chat(part), {})
    assert caught.value.data == {"capability": capability, "format": of[0]}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([image("https://example.org/a.png")], "nothing is fetched"),
        ([image("file:///etc/passwd")], "nothing is fetched"),
        ([image("DATA:text/html;base64,aGVsbG8=")], "nothing is fetched"),
        ([image(None)], "must have a url"),
        ([{"type": "image_url"}], "must have a url"),
        ([{"type": "image", "image": "a"}], "type: image_url"),
        ([image(PICTURE)] * (MAX_PICTURES + 1), "at most 16"),
        ([image(PICTURE + "A" * MAX_ENCODED_BYTES)], "bytes of pictures"),
    ],
)
def test_pictures_that_are_not_taken(parts: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(errors.InvalidParams, match=words) as caught:
        check_wishes(model("huggingface", "vision"), chat(*parts), {})
    assert caught.value.data["field"].startswith("messages")


@pytest.mark.parametrize(
    "request_",
    [
        chat(image(PICTURE), {"type": "text", "text": "a"}),
        chat(*[image(PICTURE)] * MAX_PICTURES),
        chat({"type": "input_image", "image_url": PICTURE}),
        chat(image(PICTURE.replace("png", "JPEG"))),
        {"messages": [{"role": "user", "content": "text"}]},
        {"prompt": "text"},
    ],
)
def test_what_is_taken(request_: dict[str, Any]) -> None:
    check_wishes(model("huggingface", "vision"), request_, {})


def test_adapters_of_a_request_need_a_format_that_has_them() -> None:
    options = {"adapters": [{"name": "mine", "scale": 1.0}]}
    check_wishes(model("gguf"), {}, options)
    with pytest.raises(errors.Unsupported, match="not supported for echo models") as caught:
        check_wishes(model("echo"), {}, options)
    assert caught.value.data == {"capability": "adapters", "format": "echo"}


@pytest.mark.parametrize(
    ("kind", "has", "capability", "said"),
    [
        ("generate", ["embedding"], "completion", "m generates no text; use embed"),
        ("chat", ["embedding", "reranking"], "chat", "use embed or rerank"),
        ("chat", ["completion"], "chat", "m has no chat template; use generate"),
        ("apply_template", ["completion"], "chat", "m has no chat template"),
        ("embed", ["completion"], "embedding", "m makes no embeddings"),
        ("rerank", ["completion"], "reranking", "m is no reranker"),
        ("tokenize", [], None, ""),
    ],
)
def test_a_kind_needs_a_capability(
    kind: str, has: list[str], capability: str | None, said: str
) -> None:
    made = record("m")
    made = replace(made, facts=replace(made.facts, capabilities=tuple(has)))
    if capability is None:
        check_kind(made, KINDS[kind])
        return
    with pytest.raises(errors.Unsupported, match=said) as caught:
        check_kind(made, KINDS[kind])
    assert caught.value.data["capability"] == capability
