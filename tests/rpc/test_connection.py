"""One client's lines in and out, over memory: JSON-RPC's rules and docs/protocol.md's limits."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.rpc.connection import CLOSE_GRACE_S, DISCARD_S, MAX_SUBSCRIPTIONS
from hybridd.rpc.limits import Limits
from hybridd.wire.delta import Delta
from hybridd.wire.protocol import MAX_BATCH, MAX_IN_FLIGHT
from tests.rpc.support import connected


def kind(message: Any) -> str:
    return str(message["error"]["data"]["kind"])


def request(id: Any, method: str = "echo", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


# -------------------------------------------------------------------- ids


@pytest.mark.parametrize("id", [0, -1, 2**53, -(2**53), "", "a", "x" * 128, "ü" * 128, "1"])
async def test_good_ids(id: Any) -> None:
    async with connected() as client:
        client.call("echo", id=id, value=1)
        assert await client.receive() == {"jsonrpc": "2.0", "id": id, "result": {"value": 1}}


@pytest.mark.parametrize(
    "id",
    [None, True, False, 1.0, 1.5, 2**53 + 1, -(2**53) - 1, 10**4000, "x" * 129, "\ud800", [], {}],
    ids=lambda v: str(v)[:10] if isinstance(v, (int, float)) else repr(v)[:10],
)
async def test_bad_ids(id: Any) -> None:
    async with connected() as client:
        client.call("echo", id=id)
        answer = await client.receive()
        assert answer["id"] is None
        assert (answer["error"]["code"], kind(answer)) == (-32600, "invalid_request")


async def test_an_id_in_flight_is_refused_and_the_first_goes_on() -> None:
    async with connected() as client:
        client.call("wait", id=1, name="a")
        client.call("echo", id=1)
        client.call("echo", id="1")
        refused = await client.receive()
        assert (refused["id"], kind(refused)) == (None, "invalid_request")
        assert (await client.receive())["id"] == "1", "a text is another id than a number"
        client.world.gate("a").set()
        assert (await client.receive())["result"] == {"name": "a"}
        client.call("echo", id=1)
        assert (await client.receive())["id"] == 1, "an id is free again once it was answered"


# -------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("method", "params", "code", "expected"),
    [
        ("eko", {}, -32601, "method_not_found"),
        ("echo", {"valu": 1}, -32602, "invalid_params"),
        ("echo", [1], -32602, "invalid_params"),
        ("wait", {}, -32602, "invalid_params"),
        ("wait", {"name": 7}, -32602, "invalid_params"),
        ("refuse", {}, -32006, "busy"),
        ("broken", {}, -32603, "internal_error"),
        ("unsendable", {"what": "nan"}, -32603, "internal_error"),
        ("unsendable", {"what": "object"}, -32603, "internal_error"),
        ("unsendable", {"what": "deep"}, -32603, "internal_error"),
    ],
)
async def test_errors(method: str, params: Any, code: int, expected: str) -> None:
    async with connected() as client:
        client.send({"jsonrpc": "2.0", "id": 5, "method": method, "params": params})
        answer = await client.receive()
        assert (answer["id"], answer["error"]["code"], kind(answer)) == (5, code, expected)
        assert "secret" not in json.dumps(answer)
        client.call("echo")
        assert "result" in await client.receive(), "the connection goes on"


async def test_params_may_be_left_out() -> None:
    async with connected() as client:
        client.send({"jsonrpc": "2.0", "id": 1, "method": "echo"})
        assert (await client.receive())["result"] == {"value": None}


async def test_a_method_of_a_megabyte_is_not_repeated() -> None:
    async with connected() as client:
        client.call("x" * 500_000)
        assert len(json.dumps(await client.receive())) < 1000


async def test_empty_lines_are_nothing() -> None:
    async with connected() as client:
        client.send(b"", b"  ", b"\r", json.dumps(request(1)).encode() + b"\r")
        assert (await client.receive())["id"] == 1


async def test_notifications_are_never_answered() -> None:
    async with connected() as client:
        for method, params in (
            ("echo", {}),
            ("nonsense", {}),
            ("broken", {}),
            ("$/cancelRequest", {}),
            ("$/cancelRequest", {"id": 99}),
            ("$/cancelRequest", {"id": None}),
            ("$/cancelRequest", {"id": [1]}),
            ("$/cancelRequest", {"id": True}),
            ("$/cancelRequest", [1]),
        ):
            client.send({"jsonrpc": "2.0", "method": method, "params": params})
        client.call("echo", id="last")
        assert (await client.receive())["id"] == "last"


# -------------------------------------------------------------------- pipelining


async def test_replies_come_as_they_finish() -> None:
    async with connected() as client:
        for name in "abc":
            client.call("wait", id=name, name=name)
        await trio.testing.wait_all_tasks_blocked()
        for name in "bca":
            client.world.gate(name).set()
            assert (await client.receive())["id"] == name


async def test_256_in_flight_and_then_busy() -> None:
    async with connected() as client:
        for number in range(MAX_IN_FLIGHT + 2):
            client.call("wait", id=number, name="gate")
        for number in (MAX_IN_FLIGHT, MAX_IN_FLIGHT + 1):
            answer = await client.receive()
            assert (answer["id"], kind(answer)) == (number, "busy")
            assert answer["error"]["data"]["queue_length"] == MAX_IN_FLIGHT
        client.world.gate("gate").set()
        answered = Counter([(await client.receive())["id"] for _ in range(MAX_IN_FLIGHT)])
        assert answered == Counter(range(MAX_IN_FLIGHT))
        client.call("echo", id="again")
        assert "result" in await client.receive()


# -------------------------------------------------------------------- batches


async def test_a_batch_is_answered_in_one_line_when_all_are_done() -> None:
    async with connected() as client:
        client.send([request(1), request(2, "wait", name="a"), request(3, "refuse")])
        await trio.testing.wait_all_tasks_blocked()
        client.call("echo", id="between")
        assert (await client.receive())["id"] == "between"
        client.world.gate("a").set()
        answers = {answer["id"]: answer for answer in await client.receive()}
        assert set(answers) == {1, 2, 3}
        assert kind(answers[3]) == "busy"


@pytest.mark.parametrize("size", [0, MAX_BATCH + 1])
async def test_a_batch_of_a_wrong_size_gets_one_error(size: int) -> None:
    async with connected() as client:
        client.send([request(number) for number in range(size)])
        answer = await client.receive()
        assert (answer["id"], kind(answer)) == (None, "invalid_request")
        client.call("echo")
        assert "result" in await client.receive()


async def test_the_largest_batch() -> None:
    async with connected() as client:
        client.send([request(number) for number in range(MAX_BATCH)])
        assert sorted(a["id"] for a in await client.receive()) == list(range(MAX_BATCH))


async def test_a_batch_of_notifications_is_not_answered() -> None:
    async with connected() as client:
        client.send([{"jsonrpc": "2.0", "method": "echo"}] * 3)
        client.call("echo", id="next")
        assert (await client.receive())["id"] == "next"


async def test_each_element_of_a_batch_is_checked_by_itself() -> None:
    async with connected() as client:
        client.send(
            [1, [], {}, request(None), request(1), request(1), request(2, "nonsense"),
             {"jsonrpc": "2.0", "method": "echo"}, request(3, "unsendable", what="nan")]
        )  # fmt: skip
        answers = await client.receive()
        assert Counter(answer["id"] for answer in answers) == {None: 5, 1: 1, 2: 1, 3: 1}
        assert [kind(a) for a in answers if a["id"] is None] == ["invalid_request"] * 5


@pytest.mark.parametrize("name", ["stream", "progress"])
async def test_nothing_streams_in_a_batch(name: str) -> None:
    async with connected() as client:
        params = {"deltas": ["x"], name: True}
        client.send([request(1, "stream", **params), request(2)])
        answers = {answer["id"]: answer for answer in await client.receive()}
        assert set(answers) == {1, 2}, "its id is a good one, and waits for an answer"
        assert kind(answers[1]) == "invalid_request"


async def test_an_element_of_a_batch_can_be_cancelled_from_outside_and_inside() -> None:
    async with connected() as client:
        inside = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": "b"}}
        client.send([request("a", "wait", name="a"), request("b", "wait", name="b"), inside])
        await trio.testing.wait_all_tasks_blocked()
        client.cancel("a")
        answers = await client.receive()
        assert {a["id"]: kind(a) for a in answers} == {"a": "cancelled", "b": "cancelled"}


async def test_a_batch_counts_towards_what_is_in_flight() -> None:
    async with connected() as client:
        for number in range(MAX_IN_FLIGHT - 1):
            client.call("wait", id=number, name="gate")
        client.send([request("x"), request("y")])
        answers = {answer["id"]: answer for answer in await client.receive()}
        assert "result" in answers["x"]
        assert kind(answers["y"]) == "busy"


# -------------------------------------------------------------------- cancel


async def test_cancel() -> None:
    async with connected() as client:
        client.call("wait", id=1, name="a")
        client.call("wait", id="1", name="b")
        await trio.testing.wait_all_tasks_blocked()
        client.cancel(1)
        answer = await client.receive()
        assert (answer["id"], answer["error"]["code"], kind(answer)) == (1, -32800, "cancelled")
        assert client.world.cancelled == ["a"]
        assert client.world.waiting == {"b"}
        client.cancel(1)
        client.cancel("1")
        assert (await client.receive())["id"] == "1"


async def test_a_cancel_that_comes_too_late_changes_nothing() -> None:
    async with connected() as client:
        client.call("echo", id=1)
        client.cancel(1)
        assert (await client.receive())["id"] == 1
        client.call("echo", id=1)
        assert "result" in await client.receive()


# -------------------------------------------------------------------- the end


async def test_half_close_still_gets_its_replies() -> None:
    async with connected() as client:
        client.call("wait", id=1, name="a")
        client.call("echo", id=2)
        client.wire.shutdown_write()
        assert (await client.receive())["id"] == 2
        await trio.testing.wait_all_tasks_blocked()
        client.world.gate("a").set()
        assert (await client.receive())["id"] == 1
        assert await client.receive() is None, "and then it closes"


async def test_a_last_line_needs_no_newline() -> None:
    """`printf '{…}' | socat` is a fair client."""
    async with connected() as client:
        client.wire.feed(json.dumps(request(1)).encode())
        client.wire.shutdown_write()
        assert (await client.receive())["id"] == 1
        assert await client.receive() is None


async def test_half_close_keeps_a_subscription() -> None:
    async with connected() as client:
        client.call("events.subscribe", topics=["models"])
        client.wire.shutdown_write()
        await client.receive()
        await trio.testing.wait_all_tasks_blocked()
        client.world.events.publish("models", "added", id="m")
        assert (await client.receive())["params"]["id"] == "m"


async def test_a_hang_up_cancels_everything() -> None:
    async with connected() as client:
        client.call("wait", id=1, name="a")
        client.send([request(2, "wait", name="b")])
        client.call("events.subscribe", id=3, topics=["models"])
        await trio.testing.wait_all_tasks_blocked()
        client.wire.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(client.world.cancelled) == ["a", "b"]
        assert len(client.world.events) == 0
        assert client.wire.closed


async def test_a_hang_up_after_a_half_close_cancels_everything() -> None:
    async with connected() as client:
        client.call("wait", id=1, name="a")
        client.wire.shutdown_write()
        await trio.testing.wait_all_tasks_blocked()
        assert client.world.waiting == {"a"}
        client.wire.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        assert client.world.cancelled == ["a"]


async def test_when_the_daemon_ends_what_is_owed_is_sent(autojump_clock: Any) -> None:
    async with connected() as client:
        client.call("wait", id=1, name="a")
        client.call("wait", id=2, name="b")
        await trio.testing.wait_all_tasks_blocked()
        client.connection.close()
        client.call("echo", id=3)
        answer = await client.receive()
        assert (answer["id"], kind(answer)) == (3, "shutting_down")
        client.world.gate("a").set()
        assert "result" in await client.receive()
        before = trio.current_time()
        answer = await client.receive()
        assert (answer["id"], kind(answer)) == (2, "shutting_down"), "nobody waits for ever"
        assert trio.current_time() - before <= CLOSE_GRACE_S
        assert await client.receive() is None


async def test_when_the_daemon_ends_an_idle_connection_closes_at_once() -> None:
    async with connected() as client:
        client.call("echo")
        await client.receive()
        client.connection.close()
        assert await client.receive() is None


# -------------------------------------------------------------------- lines that are too long

SMALL = Limits(max_line_bytes=1000, slow_bytes=64 * 1024, slow_s=60.0)


async def test_a_line_too_long_is_answered_discarded_and_the_end(autojump_clock: Any) -> None:
    async with connected(limits=SMALL) as client:
        client.call("wait", id=1, name="a")
        await trio.testing.wait_all_tasks_blocked()
        client.wire.feed(b"x" * 100_000)
        answer = await client.receive()
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)
        assert kind(answer) == "line_too_long"
        for _ in range(9):
            await trio.sleep(DISCARD_S / 10)
            client.wire.feed(b"x" * 100_000)
            await trio.testing.wait_all_tasks_blocked()
            assert client.wire.unread_by_daemon == 0, "who still writes is not reset"
            assert not client.wire.closed
        answer = await client.receive()
        assert (answer["id"], kind(answer)) == (1, "cancelled"), "what was accepted is answered"
        assert await client.receive() is None
        assert client.world.cancelled == ["a"]


async def test_too_many_values_are_too_long_as_well(autojump_clock: Any) -> None:
    async with connected() as client:
        client.send(b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":['
                    + b"0," * 200_000 + b"0]}}")  # fmt: skip
        answer = await client.receive()
        assert (answer["id"], kind(answer)) == (None, "line_too_long")
        assert await client.receive() is None


async def test_commas_in_a_text_are_no_values() -> None:
    async with connected() as client:
        client.call("echo", value="," * 300_000)
        assert len((await client.receive())["result"]["value"]) == 300_000


# -------------------------------------------------------------------- streams


TEXTS = ["a", "ü", "", "€uro", "\U0001f600", " ", '"\\', "\n"] * 50


@pytest.mark.parametrize("each", [True, False])
async def test_the_deltas_are_the_text(each: bool) -> None:
    async with connected() as client:
        client.call("stream", deltas=TEXTS, stream=True, each=each)
        deltas, answer = await client.until_response()
        assert answer["result"] == {}
        params = [delta["params"] for delta in deltas]
        assert "".join(p["delta"].get("text", "") for p in params) == "".join(TEXTS)
        assert sum(p["tokens"] for p in params) == len(TEXTS)
        assert [p["seq"] for p in params] == list(range(len(params)))
        assert all(d["method"] == "$/stream" and d["params"]["id"] == 1 for d in deltas)
        if not each:
            assert len(deltas) == 1, "what waits is merged"
        client.call("stream", deltas=TEXTS)
        assert (await client.receive())["result"]["text"] == "".join(TEXTS)


async def test_a_reader_that_is_late_gets_the_same_text_in_fewer_deltas() -> None:
    async with connected(room=300) as client:
        client.call("stream", deltas=TEXTS, stream=True)
        await trio.testing.wait_all_tasks_blocked()
        deltas, _ = await client.until_response()
        assert len(deltas) < len(TEXTS) / 10
        assert "".join(d["params"]["delta"].get("text", "") for d in deltas) == "".join(TEXTS)


async def test_streams_side_by_side_keep_their_own_text_and_numbers() -> None:
    async with connected() as client:
        for id in (1, 2, "x"):
            client.call("stream", id=id, deltas=[f"<{id}>"] * 20, stream=True)
        texts: dict[Any, str] = {1: "", 2: "", "x": ""}
        seqs: dict[Any, list[int]] = {1: [], 2: [], "x": []}
        answered = set()
        while len(answered) < 3:
            message = await client.receive()
            if "method" not in message:
                answered.add(message["id"])
                continue
            id = message["params"]["id"]
            assert id not in answered, "nothing follows the response"
            texts[id] += message["params"]["delta"].get("text", "")
            seqs[id].append(message["params"]["seq"])
        assert texts == {id: f"<{id}>" * 20 for id in (1, 2, "x")}
        assert all(found == list(range(len(found))) for found in seqs.values())


async def test_a_step_that_brings_more_than_one_write_is_sent_whole() -> None:
    async with connected() as client:
        await trio.testing.wait_all_tasks_blocked()
        flushes = [client.connection.sink(id)(Delta("x" * 30_000, 1)) for id in range(4)]
        assert len(set(flushes)) == 1
        assert flushes[0] is not None
        flushes[0]()
        # Nothing else comes that would wake the writer: the next step may take a minute.
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.wire.read()).count(b"\n") == 4


async def test_the_numbers_begin_anew_with_a_new_request_of_the_same_id() -> None:
    async with connected() as client:
        for _ in range(2):
            client.call("stream", deltas=["a", "logprob"], stream=True)
            deltas, _ = await client.until_response()
            assert deltas[0]["params"]["seq"] == 0
            logprobs = [lp for d in deltas for lp in d["params"]["delta"].get("logprobs", [])]
            assert logprobs == [{"token": "logprob"}]


# -------------------------------------------------------------------- slow clients


async def test_a_client_that_reads_nothing_is_ended_by_bytes(autojump_clock: Any) -> None:
    async with connected(limits=SMALL, room=1000) as client:
        client.call("wait", id=1, name="a")
        client.call("flood", id=2, size=1000)
        await trio.sleep(DISCARD_S / 2)
        assert client.world.cancelled == ["a"]
        messages = await client.everything()
        ends = [m for m in messages if "error" in m]
        assert {m["id"]: kind(m) for m in ends} == {1: "slow_consumer", 2: "slow_consumer"}
        assert len(ends) == 2


async def test_a_client_that_reads_nothing_at_all_is_closed(autojump_clock: Any) -> None:
    async with connected(limits=SMALL, room=1000) as client:
        client.call("flood", id=2, size=1000)
        await trio.sleep(DISCARD_S * 2)
        assert client.wire.closed


async def test_a_client_that_makes_no_progress_is_ended_by_time(autojump_clock: Any) -> None:
    async with connected(limits=SMALL, room=100) as client:
        client.call("echo", id=1, value="x" * 500)
        client.call("wait", id=2, name="a")
        await trio.sleep(SMALL.slow_s - 1)
        assert client.world.waiting == {"a"}
        await trio.sleep(1.5)
        assert client.world.cancelled == ["a"]
        messages = await client.everything()
        assert [m["id"] for m in messages] == [1, 2]
        assert kind(messages[1]) == "slow_consumer"


async def test_a_client_that_reads_slowly_is_none_that_does_not_read(autojump_clock: Any) -> None:
    async with connected(limits=SMALL, room=100) as client:
        client.call("echo", id=1, value="x" * 700)
        received = b""
        while not received.endswith(b"\n"):
            await trio.sleep(SMALL.slow_s - 1)
            received += await client.wire.read()
        assert json.loads(received)["result"]["value"] == "x" * 700


async def test_one_large_reply_is_no_sign_of_a_slow_client() -> None:
    async with connected(limits=Limits(10**6, 1000, 60.0), room=100) as client:
        client.call("echo", id=1, value="x" * 100_000)
        assert len((await client.receive())["result"]["value"]) == 100_000


async def test_replies_that_nobody_reads_do_not_pile_up(autojump_clock: Any) -> None:
    async with connected(limits=SMALL, room=1000) as client:
        for number in range(1000):
            client.call("echo", id=number, value="x" * 800)
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert client.connection._outbox.pending_bytes < SMALL.slow_bytes + 300 * 1000
        messages = await client.everything()
        kinds = Counter(kind(m) if "error" in m else "ok" for m in messages)
        assert set(kinds) == {"ok", "slow_consumer"}
        assert max(Counter(m["id"] for m in messages).values()) == 1


async def test_lines_that_are_only_refused_do_not_pile_up(autojump_clock: Any) -> None:
    async with connected(limits=SMALL, room=1000) as client:
        client.send(*[b"{"] * 5000)
        await trio.sleep(DISCARD_S * 3)
        assert client.wire.closed
        assert client.connection._outbox.pending_bytes < 2 * 5000 * 200


# -------------------------------------------------------------------- progress, events


async def test_progress_is_the_newest_and_comes_before_the_response() -> None:
    async with connected() as client:
        client.call("job", steps=50, progress=True)
        notifications, answer = await client.until_response()
        assert len(notifications) == 1
        assert notifications[0]["method"] == "$/progress"
        params = notifications[0]["params"]
        assert (params["id"], params["done"], params["total"]) == (1, 49, 50)
        assert params["job"] == answer["result"]["job"]
        client.call("job", steps=50)
        assert (await client.until_response())[0] == []


async def test_a_job_is_followed_until_it_is_over() -> None:
    async with connected() as client:
        jobs = client.world.jobs
        job = jobs.create("load", "m")
        client.call("jobs.wait", job=job.job, progress=True)
        assert (await client.receive())["params"]["stage"] == "queued"
        jobs.update(job, state="running", stage="weights", done=1, total=2)
        assert (await client.receive())["params"]["fraction"] == 0.5
        jobs.finish(job, "done", result={"id": "m"})
        notifications, answer = await client.until_response()
        assert [n["params"]["fraction"] for n in notifications] == [1.0]
        assert answer["result"]["state"] == "done"


async def test_events() -> None:
    async with connected() as client:
        client.call("events.subscribe", topics=["models", "jobs"])
        answer = (await client.receive())["result"]
        assert answer["revision"] == 7
        client.world.events.publish("models", "added", id="m", revision=8)
        client.world.events.publish("memory", "pressure")
        client.world.events.publish("jobs", "done", job="j")
        events = [await client.receive(), await client.receive()]
        assert events[0] == {
            "jsonrpc": "2.0",
            "method": "$/event",
            "params": {
                "subscription": answer["subscription"], "seq": 1, "time": 0.0, "topic": "models",
                "type": "added", "id": "m", "revision": 8,
            },
        }  # fmt: skip
        assert (events[1]["params"]["seq"], events[1]["params"]["topic"]) == (2, "jobs")
        client.call("events.unsubscribe", id=2, subscription=answer["subscription"])
        await client.receive()
        client.world.events.publish("models", "added", id="n")
        client.call("echo", id=3)
        assert (await client.receive())["id"] == 3


async def test_a_subscription_belongs_to_its_connection() -> None:
    async with connected() as client:
        other = client.world.events.subscribe(["models"], lambda: None)
        client.call("events.unsubscribe", subscription=other.name)
        assert (await client.receive())["result"] == {}
        assert len(client.world.events) == 1
        client.world.events.unsubscribe(other.name)


async def test_subscriptions_have_a_limit() -> None:
    async with connected() as client:
        for number in range(MAX_SUBSCRIPTIONS):
            client.call("events.subscribe", id=number, topics=["models"])
            assert "result" in await client.receive()
        client.call("events.subscribe", id="more", topics=["models"])
        assert kind(await client.receive()) == "busy"
        assert len(client.world.events) == MAX_SUBSCRIPTIONS


async def test_who_does_not_read_loses_events_and_is_told_where(autojump_clock: Any) -> None:
    async with connected(room=1000) as client:
        client.call("events.subscribe", topics=["models"])
        await client.receive()
        for number in range(5000):
            client.world.events.publish("models", "added", number=number)
        await trio.testing.wait_all_tasks_blocked()
        seen: list[int] = []
        while (message := await client.receive())["method"] == "$/event":
            seen.append(message["params"]["number"])
        assert message["method"] == "$/eventsLost"
        assert seen == list(range(len(seen)))
        assert message["params"]["count"] == 5000 - len(seen)
        client.world.events.publish("models", "added", number="next")
        params = (await client.receive())["params"]
        assert (params["number"], params["seq"]) == ("next", 5001)


async def test_replies_go_before_events() -> None:
    async with connected(room=1000) as client:
        client.call("events.subscribe", topics=["models"])
        await client.receive()
        for _ in range(3000):
            client.world.events.publish("models", "added", text="x" * 100)
        client.call("echo", id="soon")
        await trio.testing.wait_all_tasks_blocked()
        position = 0
        while (await client.receive()).get("id") != "soon":
            position += 1
        assert position < 1000
