"""Anthropic's messages of content blocks, as the conversation that the protocol's `chat` takes.

Pure. What a block means that a chat template cannot say is either left out where that loses
nothing (`cache_control`, signatures, what their servers did) or refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hybridd.backends.data_urls import bad
from hybridd.wire.errors import InvalidParams, Unsupported

Message = dict[str, Any]

# Claude Code's first block of `system`: for their bills. It changes with every request, and as the
# beginning of the prompt it would leave nothing of it in the prefix cache.
_BILLING = "x-anthropic-billing-header:"
# What their servers did in an earlier turn, and thoughts that only they can read.
_SKIPPED = frozenset({"redacted_thinking", "server_tool_use", "mcp_tool_use", "mcp_tool_result"})
_SERVER_RESULT = "_tool_result"
_ROLES = ("user", "assistant", "system")


def conversation(system: object, messages: object) -> list[Message]:
    """The protocol's `messages`.

    Turns of one role in a row become one, as they do at Anthropic's. A system message in the middle
    becomes the user's words: most chat templates take one at the beginning only.

    Args:
        system: The body's `system`.
        messages: The body's `messages`.

    Raises:
        InvalidParams: What is no conversation; `field` names the part.
        Unsupported: A block that no model here reads.
    """
    if not isinstance(messages, list) or not messages:
        raise bad("messages", "must be a list of at least one message")
    made: list[Message] = []
    instructions = _system_text(system, "system")
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in _ROLES:
            raise bad(where, "must be an object whose role is user or assistant")
        content = message.get("content")
        if role == "system" and not made:
            instructions += _system_text(content, f"{where}.content")
        elif role == "assistant":
            _join(made, _assistant(content, f"{where}.content"))
        else:
            for turn in _user(content, f"{where}.content"):
                _join(made, turn)
    if not made:
        raise bad("messages", "must have a message of the user")
    if made[-1]["role"] == "assistant":
        raise Unsupported(
            "going on from the beginning of an answer (a last message of the assistant) is not "
            "supported; let the conversation end with a message of the user",
            capability="prefill",
        )
    return (
        [{"role": "system", "content": "\n\n".join(instructions)}, *made] if instructions else made
    )


def _system_text(content: object, where: str) -> list[str]:
    blocks = _blocks(content, where) if content is not None else []
    texts = [_text(block, at) for at, block in blocks]
    return [text for text in texts if text and not text.startswith(_BILLING)]


def _blocks(content: object, where: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Each block with where it is; a text by itself is a block of it."""
    if isinstance(content, str):
        return [(where, {"type": "text", "text": content})]
    if not isinstance(content, list):
        raise bad(where, "must be a text or a list of content blocks")
    found = []
    for j, block in enumerate(content):
        if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
            raise bad(f"{where}[{j}]", "must be a content block: an object with a type")
        found.append((f"{where}[{j}]", block))
    return found


def _text(block: Mapping[str, Any], where: str) -> str:
    text = block.get("text")
    if block.get("type") != "text" or not isinstance(text, str):
        raise bad(where, "must be a text block: {type: text, text: …}")
    return text


# ---------------------------------------------------------------- the user's turns


def _user(content: object, where: str) -> Iterator[Message]:
    """The tools' results, each a message of its own, and what the user says between them."""
    parts: list[dict[str, Any]] = []
    for at, block in _blocks(content, where):
        if block["type"] != "tool_result":
            parts += _parts(block, at)
            continue
        if parts:
            yield {"role": "user", "content": parts}
            parts = []
        yield _tool_result(block, at)
    if parts:
        yield {"role": "user", "content": parts}


def _tool_result(block: Mapping[str, Any], where: str) -> Message:
    call = block.get("tool_use_id")
    if not isinstance(call, str):
        raise bad(f"{where}.tool_use_id", "must name the tool_use block that it answers")
    content = block.get("content")
    blocks = _blocks(content, f"{where}.content") if content is not None else []
    parts = [part for at, inner in blocks for part in _parts(inner, at)]
    return {"role": "tool", "tool_call_id": call, "content": _plain(parts)}


def _parts(block: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """A block of the user's as the protocol's parts; most blocks are one part."""
    kind = block["type"]
    if kind == "text":
        return [{"type": "text", "text": _text(block, where)}]
    if kind == "image":
        return [_image(block.get("source"), f"{where}.source")]
    if kind == "document":
        return _document(block, where)
    if kind == "search_result":
        title = str(block.get("title") or block.get("source") or "")
        inner = _blocks(block.get("content"), f"{where}.content")
        return [{"type": "text", "text": "\n".join([title, *(_text(b, at) for at, b in inner)])}]
    if kind == "tool_reference":
        return [{"type": "text", "text": str(block.get("tool_name") or "")}]
    if _left_out(kind):
        return []
    raise _unknown(kind, where)


def _image(source: object, where: str) -> dict[str, Any]:
    kind = source.get("type") if isinstance(source, Mapping) else None
    if not isinstance(source, Mapping) or kind != "base64":
        raise bad(
            where,
            "must be a picture in base64 ({type: base64, media_type: image/png, data: …}); "
            "nothing is fetched from elsewhere",
        )
    media, data = source.get("media_type"), source.get("data")
    if not isinstance(media, str) or not isinstance(data, str):
        raise bad(where, "must have media_type and data")
    return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{data}"}}


def _document(block: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, Mapping) else None
    title = [{"type": "text", "text": str(block["title"])}] if block.get("title") else []
    if isinstance(source, Mapping) and kind == "text" and isinstance(source.get("data"), str):
        return [*title, {"type": "text", "text": source["data"]}]
    if isinstance(source, Mapping) and kind == "content":
        blocks = _blocks(source.get("content"), f"{where}.source.content")
        return [*title, *(part for at, inner in blocks for part in _parts(inner, at))]
    raise Unsupported(
        f"{where} is a document that is no plain text (source of type {kind}), which is not "
        "supported; send its text",
        capability="documents",
    )


# ---------------------------------------------------------------- the assistant's turns


def _assistant(content: object, where: str) -> Message:
    parts: list[dict[str, Any]] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for at, block in _blocks(content, where):
        kind = block["type"]
        if kind == "text":
            parts.append({"type": "text", "text": _text(block, at)})
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking") or ""))
        elif kind == "tool_use":
            calls.append(_tool_call(block, at))
        elif not _left_out(kind):
            raise _unknown(kind, at)
    message: Message = {"role": "assistant", "content": _plain(parts)}
    if reasoning := "".join(thoughts):
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    name, arguments = block.get("name"), block.get("input")
    if not isinstance(name, str) or not isinstance(block.get("id"), str):
        raise bad(where, "must have the id and the name of the tool's call")
    if not isinstance(arguments, Mapping):
        raise bad(f"{where}.input", "must be an object")
    text = json.dumps(arguments, ensure_ascii=False)
    return {"id": block["id"], "type": "function", "function": {"name": name, "arguments": text}}


# ---------------------------------------------------------------- what both have


def _join(made: list[Message], turn: Message) -> None:
    """Add a turn, or what it says to the one before it if that has the same role."""
    last = made[-1] if made else None
    if last is None or last["role"] != turn["role"] or turn["role"] == "tool":
        made.append({**turn, "content": _plain(turn["content"])})
        return
    last["content"] = _plain([*_as_parts(last["content"]), *_as_parts(turn["content"])])
    if reasoning := (last.get("reasoning_content") or "") + (turn.get("reasoning_content") or ""):
        last["reasoning_content"] = reasoning
    if calls := [*last.get("tool_calls", ()), *turn.get("tool_calls", ())]:
        last["tool_calls"] = calls


def _as_parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(content, str):
        return content
    return [{"type": "text", "text": content}] if content else []


def _plain(parts: str | Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as a text where they are nothing else: every chat template takes that."""
    if isinstance(parts, str):
        return parts
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return list(parts)


def _left_out(kind: str) -> bool:
    return kind in _SKIPPED or (kind.endswith(_SERVER_RESULT) and kind != "tool_result")


def _unknown(kind: str, where: str) -> InvalidParams:
    return bad(where, f"is a block of a kind that is not known here ({kind[:40]})")
