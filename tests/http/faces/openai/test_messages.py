"""Messages of a chat, as the protocol has them."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.core.fields import FieldError
from hybridd.core.options import MESSAGES as PROTOCOL
from hybridd.http.faces.openai.messages import MESSAGES, conversation
from hybridd.wire.errors import InvalidParams
from tests.http.faces.openai.support import CALL

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}


def made(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """What they become, which the protocol takes."""
    return PROTOCOL.check(conversation(MESSAGES.check(list(messages))))


@pytest.mark.parametrize(
    ("message", "becomes"),
    [
        ({"role": "system", "content": "Be short."}, None),
        (
            {"role": "developer", "content": "Be short."},
            {"role": "system", "content": "Be short."},
        ),
        ({"role": "user", "content": "Hi", "name": "Ada"}, None),
        (
            {"role": "user", "content": "Hi", "name": None, "tool_calls": None, "extra": 1},
            {"role": "user", "content": "Hi"},
        ),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}, PICTURE, SOUND]}, None),
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}},
                    {"type": "input_text", "text": "there"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi"},
                    {"type": "text", "text": "there"},
                    PICTURE,
                ],
            },
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL], "audio": None},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
        (
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "assistant", "content": "No."},
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
        ),
        ({"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}, None),
        ({"role": "tool", "tool_call_id": "call_a", "content": "found"}, None),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "look"}}]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"type": "function", "function": {"name": "look", "arguments": "{}"}}
                ],
            },
        ),
    ],
)
def test_each_message(message: dict[str, Any], becomes: dict[str, Any] | None) -> None:
    assert made(message) == [message if becomes is None else becomes]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "user", "content": None}, "messages[0].content"),
        (
            {"role": "user", "content": [{"type": "text", "text": None}]},
            "messages[0].content[0].text",
        ),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0].function"),
    ],
)
def test_what_is_wrong_is_named(message: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        made(message)
    assert caught.value.data["field"] == field


@pytest.mark.parametrize("content", [5, ["Hi"], {"text": "Hi"}])
def test_content_is_a_text_or_parts(content: Any) -> None:
    with pytest.raises(FieldError):
        made({"role": "user", "content": content})


def test_what_begins_a_conversation_becomes_one_message_of_the_systems() -> None:
    told = made(
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": part} for part in "ab"]},
        {"role": "user", "content": "Hi"},
        {"role": "developer", "content": "Later."},
    )
    assert told == [
        {"role": "system", "content": "One.\n\na\nb"},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "Later."},
    ]


def test_the_systems_pictures_stay() -> None:
    shown = {"role": "system", "content": [PICTURE]}
    assert made({"role": "system", "content": "One."}, shown) == [
        {"role": "system", "content": "One."},
        shown,
    ]
