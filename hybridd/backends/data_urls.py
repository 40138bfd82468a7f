"""Pictures in messages: `data:` URLs, and nothing else. Nothing is ever fetched.

The daemon refuses what is no such URL, or too much of it, before any work (`check`); a worker
decodes (`decode`). What the bytes are is for whoever opens them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hybridd.wire.errors import InvalidParams

# What a model sees of a picture is hundreds of tokens: more than this fills most contexts.
MAX_PICTURES = 16
# All of a request together, as base64: leaves room in a line of 16 MiB for the conversation.
MAX_ENCODED_BYTES = 12 * 1024 * 1024
# Content parts that are no text -> the capability that a model needs for them.
SENSES: Mapping[str, str] = {
    "image_url": "vision",
    "image": "vision",
    "input_image": "vision",
    "video": "vision",
    "video_url": "vision",
    "input_audio": "audio",
    "audio": "audio",
}
_PICTURES = ("image_url", "input_image")
_BEGIN = re.compile(r"data:image/(?:png|jpe?g|webp|gif);base64,", re.ASCII | re.IGNORECASE)


def parts(messages: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every content part that is no text, with where it is; messages of any shape will do."""
    for i, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, Mapping) else None
        for j, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, Mapping) and part.get("type") in SENSES:
                yield f"messages[{i}].content[{j}]", part


def url_of(part: Mapping[str, Any], where: str) -> str:
    """The URL of a picture's part.

    Raises:
        InvalidParams: It has none, or one that is no `data:` URL of a known kind.
    """
    if part.get("type") not in _PICTURES:
        raise bad(where, "must be {type: image_url, image_url: {url: data:image/png;base64,…}}")
    said = part.get("image_url")
    url = said.get("url") if isinstance(said, Mapping) else said
    if not isinstance(url, str):
        raise bad(f"{where}.image_url", "must have a url")
    if not _BEGIN.match(url):
        raise bad(
            f"{where}.image_url",
            "must be a data: URL of a PNG, JPEG, WebP or GIF picture in base64 "
            "(data:image/png;base64,…); nothing is fetched from elsewhere",
        )
    return url


def check(urls: list[str]) -> None:
    """Refuse more than one request may have.

    Raises:
        InvalidParams: Too many, or too large.
    """
    if len(urls) > MAX_PICTURES:
        raise bad("messages", f"have {len(urls)} pictures; at most {MAX_PICTURES} are taken")
    size = sum(map(len, urls))
    if size > MAX_ENCODED_BYTES:
        raise bad(
            "messages",
            f"have {size} bytes of pictures as base64; at most {MAX_ENCODED_BYTES} are taken",
        )


def decode(url: str, where: str) -> bytes:
    """The bytes of a URL that `url_of` gave.

    Raises:
        InvalidParams: They are no base64.
    """
    begin = _BEGIN.match(url)
    assert begin is not None, "url_of lets nothing else through"
    try:
        return base64.b64decode(url[begin.end() :], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise bad(where, "is no valid base64") from exc


def bad(where: str, reason: str) -> InvalidParams:
    """The error that names the part."""
    return InvalidParams(f"{where} {reason}", field=where, reason=reason)
