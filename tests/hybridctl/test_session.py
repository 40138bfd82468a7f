"""The sans-IO session: what the daemon sends, in any pieces, becomes the right messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridctl.sdk.errors import ConnectionLost
from hybridctl.sdk.session import DELTA, ERROR, EVENT, LOST, PROGRESS, REPLY, Message, Session
from hybridd.wire import protocol
from hybridd.wire.errors import Busy, InvalidParams, LineTooLong, ModelNotFound
from hybridd.wire.framing import encode_line


def feed(session: Session, *messages: Any) -> list[Message]:
    return session.receive(b"".join(map(encode_line, messages)))


def brief(messages: list[Message]) -> list[tuple[str, object, object]]:
    return [(m.kind, m.id if m.subscription is None else m.subscription, m.value) for m in messages]


def test_requests_are_numbered_and_encoded_as_lines() -> None:
    session = Session()
    first, data = session.request("system.ping", {})
    second, _ = session.request("system.info", {})
    assert (first, second) == (1, 2)
    assert json.loads(data) == {"jsonrpc": "2.0", "id": 1, "method": "system.ping", "params": {}}
    assert data.endswith(b"\n")
    assert session.open_requests == {1, 2}


def test_params_that_are_no_json_open_nothing() -> None:
    session = Session()
    with pytest.raises(InvalidParams, match="Out of range"):
        session.request("generate", {"options": {"temperature": float("nan")}})
    assert not session.open_requests


def test_replies_in_any_order_find_their_requests() -> None:
    session = Session()
    session.request("a", {})
    session.request("b", {})
    got = feed(session, protocol.response(2, {"b": 1}), protocol.response(1, {"a": 1}))
    assert brief(got) == [(REPLY, 2, {"b": 1}), (REPLY, 1, {"a": 1})]
    assert not session.open_requests


def test_an_error_is_typed_by_its_kind() -> None:
    session = Session()
    session.request("models.show", {})
    error = ModelNotFound("no such model", suggestions=["x"])
    (message,) = feed(session, protocol.error_response(1, error.to_wire()))
    assert message.kind == ERROR
    assert isinstance(message.value, ModelNotFound)
    assert message.value.data == {"suggestions": ["x"]}


def test_a_second_reply_and_unknown_ids_are_ignored() -> None:
    session = Session()
    session.request("a", {})
    got = feed(
        session,
        protocol.response(1, {}),
        protocol.response(1, {}),
        protocol.response(99, {}),
        protocol.response("1", {}),
        protocol.response(True, {}),
        protocol.notification(protocol.STREAM, {"id": 1, "delta": {"text": "late"}}),
        protocol.notification("$/tomorrow", {"x": 1}),
    )
    assert brief(got) == [(REPLY, 1, {})]


def test_deltas_and_progress_go_to_their_request() -> None:
    session = Session()
    session.request("generate", {})
    delta = {"id": 1, "seq": 0, "tokens": 2, "delta": {"text": "ab"}}
    progress = {"id": 1, "job": "j", "stage": "weights", "done": 1, "total": 4, "fraction": 0.25}
    first, second = feed(
        session,
        protocol.notification(protocol.STREAM, delta),
        protocol.notification(protocol.PROGRESS, progress),
    )
    assert (first.kind, first.value.text, first.value.tokens) == (DELTA, "ab", 2)
    assert first.value.raw == delta
    assert (second.kind, second.value.fraction) == (PROGRESS, 0.25)


def test_an_error_without_id_fails_everything_open() -> None:
    session = Session()
    session.request("a", {})
    session.request("b", {})
    got = feed(session, protocol.error_response(None, LineTooLong("too long").to_wire()))
    assert [(m.kind, m.id) for m in got] == [(ERROR, 1), (ERROR, 2)]
    assert all(isinstance(m.value, LineTooLong) for m in got)
    assert session.close(ConnectionLost("gone")) == []


def test_an_event_that_overtakes_its_subscription_is_held_back() -> None:
    session = Session()
    session.request("events.subscribe", {})
    event = {"subscription": "s", "seq": 1, "topic": "models", "type": "added", "id": "m"}
    assert feed(session, protocol.notification(protocol.EVENT, event)) == []
    reply, held = feed(session, protocol.response(1, {"subscription": "s"}))
    assert reply.kind == REPLY
    assert (held.kind, held.subscription, held.value.type) == (EVENT, "s", "added")
    (lost,) = feed(
        session, protocol.notification(protocol.EVENTS_LOST, {"subscription": "s", "count": 3})
    )
    assert (lost.kind, lost.value) == (LOST, 3)
    session.forget("s")
    assert feed(session, protocol.notification(protocol.EVENT, event)) == []


def test_cancel_only_speaks_of_open_requests() -> None:
    session = Session()
    session.request("generate", {})
    asked = json.loads(session.cancel(1))
    assert asked == {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}}
    feed(session, protocol.response(1, {}))
    assert session.cancel(1) == b""


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 400 Bad Request\n",
        b"17\n",
        b"\xff\xfe\n",
        b'{"method": "$/stream"}\n',
        b"[" * 9999 + b"\n",
    ],
)
def test_a_foreign_program_behind_the_socket_is_a_lost_connection(line: bytes) -> None:
    with pytest.raises(ConnectionLost, match="no hybridd"):
        Session().receive(line)


_REPLIES = st.lists(
    st.one_of(
        st.integers(1, 6).map(lambda id: protocol.response(id, {"ok": id})),
        st.integers(1, 6).map(lambda id: protocol.error_response(id, Busy("busy").to_wire())),
        st.tuples(st.integers(1, 6), st.text(max_size=5)).map(
            lambda t: protocol.notification(
                protocol.STREAM, {"id": t[0], "seq": 0, "tokens": 1, "delta": {"text": t[1]}}
            )
        ),
    ),
    max_size=20,
)


@given(_REPLIES, st.data())
def test_pieces_do_not_matter_and_each_request_ends_once(replies: list[Any], data: Any) -> None:
    whole, pieces = Session(), Session()
    for session in (whole, pieces):
        for _ in range(5):
            session.request("a", {})
    stream = b"".join(map(encode_line, replies))
    expected = whole.receive(stream)
    got: list[Message] = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        got += pieces.receive(stream[:cut])
        stream = stream[cut:]
    assert [(m.kind, m.id) for m in got] == [(m.kind, m.id) for m in expected]
    got += pieces.close(ConnectionLost("gone"))
    ended = [m.id for m in got if m.kind in (REPLY, ERROR)]
    assert sorted(ended) == [1, 2, 3, 4, 5]
