"""What a connection has to send, in any order of putting and taking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from hybridd.daemon.events import EventHub
from hybridd.rpc.encoded import Pieces
from hybridd.rpc.outbox import CHUNK_BYTES, Outbox
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_line
from hybridd.wire.protocol import STREAM, notification, response

IDS = some.sampled_from([1, 2, "x"])
STEPS = some.one_of(
    some.tuples(some.just("delta"), IDS, some.text(max_size=4), some.booleans()),
    some.tuples(some.just("finish"), IDS, some.none(), some.none()),
    some.tuples(some.just("progress"), IDS, some.integers(0, 9), some.none()),
    some.tuples(some.just("take"), some.none(), some.none(), some.none()),
)


def messages(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


@given(some.lists(STEPS, max_size=60))
def test_every_text_arrives_whole_and_in_order(steps: list[tuple[str, Any, Any, Any]]) -> None:
    outbox, sent, out = Outbox(), {}, []
    round_of: dict[Any, int] = {}
    expected: dict[tuple[Any, int], str] = {}
    for step, id, value, logprob in steps:
        key = (id, round_of.get(id, 0))
        if step == "delta":
            outbox.delta(id, Delta(value, 1, logprobs=[{"p": 1}] if logprob else None))
            expected[key] = expected.get(key, "") + value
        elif step == "finish":
            outbox.finish(id, encode_line(response(id, {"round": key[1]})))
            round_of[id] = key[1] + 1
        elif step == "progress":
            outbox.progress(id, {"done": value})
        elif outbox.ready:
            out.append(outbox.take())
    while outbox.ready:
        out.append(outbox.take())
    assert outbox.pending_bytes == 0
    found: dict[Any, int] = {}
    texts: dict[tuple[Any, int], str] = {}
    numbers: dict[tuple[Any, int], list[int]] = {}
    for message in messages(b"".join(out)):
        if message.get("method") == "$/stream":
            params = message["params"]
            key = (params["id"], found.get(params["id"], 0))
            texts[key] = texts.get(key, "") + params["delta"].get("text", "")
            numbers.setdefault(key, []).append(params["seq"])
        elif "result" in message:
            id = message["id"]
            assert message["result"]["round"] == found.get(id, 0), "its own deltas came before"
            found[id] = found.get(id, 0) + 1
    assert texts == expected
    assert all(n == list(range(len(n))) for n in numbers.values())
    assert not sent


def test_a_chunk_is_bounded_unless_one_message_is_larger() -> None:
    outbox = Outbox()
    for _ in range(100):
        outbox.put(encode_line("x" * 5000))
    while outbox.ready:
        assert len(outbox.take()) < CHUNK_BYTES + 6000
    outbox.put(encode_line("x" * 10 * CHUNK_BYTES))
    assert len(outbox.take()) > 10 * CHUNK_BYTES


def test_a_line_in_pieces_is_put_together_while_it_is_sent() -> None:
    outbox, taken = Outbox(), 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(10):
            taken += 1
            yield b"x" * (CHUNK_BYTES // 2 - 1)
        yield b"\n"

    outbox.put(b"before\n")
    outbox.put(Pieces(10 * (CHUNK_BYTES // 2 - 1) + 1, pieces()))
    outbox.put(b"after\n")
    assert (taken, outbox.pending_bytes) == (0, 10 * (CHUNK_BYTES // 2 - 1) + 14)
    found = [outbox.take()]
    assert taken == 2
    while outbox.ready:
        found.append(outbox.take())
        assert len(found[-1]) <= 2 * CHUNK_BYTES
    whole = b"x" * 10 * (CHUNK_BYTES // 2 - 1)
    assert b"".join(found).splitlines() == [b"before", whole, b"after"]
    assert outbox.pending_bytes == 0


def test_pending_bytes_count_what_waits() -> None:
    outbox = Outbox()
    outbox.put(b"12345\n")
    outbox.delta(1, Delta("abc", 1))
    before = outbox.pending_bytes
    assert before > 9
    outbox.delta(1, Delta("abc", 1, logprobs=[{}]))
    assert outbox.pending_bytes > before
    outbox.take()
    assert outbox.pending_bytes == 0


def test_progress_is_replaced_not_piled_up() -> None:
    outbox = Outbox()
    for number in range(1000):
        outbox.progress(1, {"done": number})
        outbox.progress(2, {"done": -number})
    assert [m["params"] for m in messages(outbox.take())] == [
        {"id": 1, "done": 999}, {"id": 2, "done": -999},
    ]  # fmt: skip
    assert not outbox.ready


def test_events_come_when_nothing_else_waits() -> None:
    hub, outbox = EventHub(), Outbox()
    subscription = hub.subscribe(["models"], lambda: None)
    outbox.attach(subscription)
    assert not outbox.ready
    hub.publish("models", "added", id="m")
    outbox.put(encode_line({"first": True}))
    found = messages(outbox.take())
    assert found[0] == {"first": True}
    assert found[1]["params"]["id"] == "m"
    assert outbox.detach(subscription.name)
    assert not outbox.detach(subscription.name)


@given(some.one_of(some.text(max_size=8), some.integers()), some.text(), some.booleans())
def test_a_streams_line_is_what_the_encoder_would_make(id: Any, text: str, logprob: bool) -> None:
    outbox = Outbox()
    for seq in range(2):
        logprobs = [{"token": text, "logprob": -1.5}] if logprob else []
        outbox.delta(id, Delta(text, 3, logprobs=logprobs))
        delta: dict[str, Any] = {"text": text} if text else {}
        if logprobs:
            delta["logprobs"] = logprobs
        params = {"id": id, "seq": seq, "tokens": 3, "delta": delta}
        assert json.loads(outbox.take()) == notification(STREAM, params)


def test_text_that_is_no_unicode_is_escaped() -> None:
    outbox = Outbox()
    outbox.delta(1, Delta("a\udc80é", 1))
    line = outbox.take()
    assert b'"a\\udc80\\u00e9"' in line
    assert json.loads(line)["params"]["delta"]["text"] == "a\udc80é"


def test_what_was_not_taken_from_us_goes_first() -> None:
    outbox = Outbox()
    outbox.delta(1, Delta("one", 1))
    line = outbox.take()
    outbox.delta(1, Delta("two", 1))
    outbox.put_back(line[10:])
    data = line[:10] + outbox.take()
    assert [m["params"]["delta"]["text"] for m in messages(data)] == ["one", "two"]
    assert outbox.pending_bytes == 0
