"""The asynchronous client against the scripted daemon, under trio and asyncio."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

import hybridctl
from hybridctl import AsyncClient
from hybridd.wire import protocol

pytestmark = pytest.mark.anyio

ID = "hybridd/demo-gguf:F16"
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def _endless(call: Any) -> None:
    call.delta(0, "Hel")
    call.until_cancelled()


async def _was_cancelled(daemon: Any) -> str:
    return await anyio.to_thread.run_sync(lambda: daemon.cancelled.get(timeout=20))


async def test_every_method_keeps_to_the_protocol(daemon: Any) -> None:
    async with AsyncClient() as client:
        await client.ping()
        assert (await client.info()).pid == 4710
        assert [m.id for m in await client.list(format="gguf")] == [ID]
        assert (await client.show("demo")).id == ID
        assert await client.resolve("demo") == ID
        made = await client.configure("demo", pin=True, alias=None)
        assert made == {"model": ID, "pin": True, "alias": None}
        assert (await client.rescan()).total == 3
        assert (await client.loaded())[0].id == ID
        assert (await client.unload("demo")).unloaded == [ID]
        assert await client.tokenize("demo", "a") == [97]
        assert await client.detokenize("demo", [97]) == "a"
        made = await client.embed("demo", ["a", "bc"], dimensions=2, keepalive="5m")
        assert (made.embeddings, made.usage.prompt_tokens) == ([[1.0, -0.5], [2.0, -0.5]], 3)
        ranked = await client.rerank("demo", "q", ["x", "y"], top_n=1)
        assert [(one.index, one.score) for one in ranked.results] == [(0, 0.5)]
        assert await client.apply_template("demo", HELLO) == "<s>"
        assert [job.job for job in await client.jobs()] == ["j1"]
        assert (await client.job("j1")).state == "running"
        assert (await client.cancel_job("j1")).job == "j1"
        assert (await client.wait_job("j1")).state == "done"
        assert (await client.config_get())["models.keepalive"].value == 300
        assert (await client.config_set({"a.b": 1})).changed == ["a.b"]
        assert (await client.config_unset("a.b")).changed == ["a.b"]
        assert await client.call("models.resolve", model="demo") == {"id": ID}
        assert (await client.generate("demo", "Hi", max_tokens=4)).text == "Hello, wörld"
        assert (await client.chat("demo", HELLO)).text == "Hello, wörld"
        await client.shutdown()


async def test_progress_may_be_heard_by_a_function_or_a_coroutine(daemon: Any) -> None:
    seen: list[float | None] = []

    async def hear(progress: Any) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(progress.fraction)

    async with AsyncClient() as client:
        assert (await client.load("demo", on_progress=hear)).id == ID
        await client.load("demo", on_progress=lambda p: seen.append(p.fraction))
        assert (await client.load("demo", wait=False)).job == "j1"
    assert seen == [0.5, 1.0, 0.5, 1.0]


async def test_a_stream_begins_when_it_is_entered_awaited_or_iterated(daemon: Any) -> None:
    async with AsyncClient() as client:
        async with client.generate("demo", "Hi", stream=True) as stream:
            assert [delta.text async for delta in stream] == ["Hel", "lo, ", "wörld"]
            assert (await stream.result()).text == "Hello, wörld"
        awaited = await client.chat("demo", HELLO, stream=True)
        assert (await awaited.result()).message["content"] == "Hello, wörld"
        assert "".join([d.text async for d in client.chat("demo", HELLO, stream=True)])
    assert daemon.cancelled.empty()


async def test_requests_run_at_the_same_time(daemon: Any) -> None:
    """The first answer needs the second request: in turns, neither would end."""
    both = threading.Barrier(2, timeout=20)
    daemon.handlers["models.resolve"] = lambda call: {"id": f"{call.params['model']}{both.wait()}"}
    got = []

    async with AsyncClient() as client:

        async def resolve(name: str) -> None:
            got.append((await client.resolve(name))[0])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(resolve, "a")
            tasks.start_soon(resolve, "b")
    assert sorted(got) == ["a", "b"]


async def test_cancelling_the_task_cancels_the_request(daemon: Any) -> None:
    daemon.handlers["generate"] = _endless
    async with AsyncClient() as client:
        async with anyio.create_task_group() as tasks:
            stream = await client.generate("demo", "Hi", stream=True)
            await anext(stream)
            tasks.start_soon(stream.result)
            tasks.start_soon(client.generate, "demo", "Hi")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert [await _was_cancelled(daemon) for _ in range(2)] == ["generate", "generate"]
        await client.ping()


async def test_leaving_a_stream_cancels_it(daemon: Any) -> None:
    daemon.handlers["chat"] = _endless
    async with AsyncClient() as client:
        async with client.chat("demo", HELLO, stream=True) as stream:
            assert (await anext(stream)).text == "Hel"
        assert await _was_cancelled(daemon) == "chat"
        with pytest.raises(hybridctl.Cancelled):
            await stream.result()


async def test_cancel_ends_the_iteration_quietly(daemon: Any) -> None:
    daemon.handlers["chat"] = _endless
    async with AsyncClient() as client, client.chat("demo", HELLO, stream=True) as stream:
        async for _ in stream:
            stream.cancel()
        assert stream.text == "Hel"


async def test_errors_leave_the_client_as_they_are(daemon: Any) -> None:
    """No ExceptionGroup around what the caller's `except` looks for."""

    def missing(call: Any) -> None:
        raise hybridctl.ModelNotFound("no such model", suggestions=[])

    daemon.handlers["models.show"] = missing
    with pytest.raises(hybridctl.ModelNotFound):
        async with AsyncClient() as client:
            await client.show("x")
    with pytest.raises(KeyError):
        async with AsyncClient():
            raise KeyError("the caller's own")


async def test_leaving_by_cancellation_from_outside(daemon: Any) -> None:
    daemon.handlers["generate"] = _endless
    with anyio.CancelScope() as scope:
        async with AsyncClient() as client:
            stream = await client.generate("demo", "Hi", stream=True)
            await anext(stream)
            scope.cancel()
            await anext(stream)
    assert scope.cancelled_caught
    assert await _was_cancelled(daemon) == "generate"


async def test_silence_is_bounded_and_cancels(daemon: Any) -> None:
    daemon.handlers["generate"] = lambda call: call.until_cancelled()
    async with AsyncClient(timeout=0.05) as client:
        with pytest.raises(hybridctl.RequestTimeout):
            await client.generate("demo", "Hi")
        assert await _was_cancelled(daemon) == "generate"


async def test_a_dead_daemon_ends_everything_and_the_next_call_connects_again(
    daemon: Any,
) -> None:
    daemon.handlers["chat"] = _endless
    daemon.handlers["generate"] = lambda call: (daemon.hang_up(), call.until_cancelled())
    async with AsyncClient() as client:
        events = await client.events("models")
        stream = await client.chat("demo", HELLO, stream=True)
        assert (await anext(stream)).text == "Hel"
        with pytest.raises(hybridctl.ConnectionLost):
            await client.generate("demo", "Hi")
        with pytest.raises(hybridctl.ConnectionLost):
            await anext(events)
        with pytest.raises(hybridctl.ConnectionLost):
            await stream.result()
        await client.ping()


async def test_events_are_routed_even_when_they_overtake_the_subscription(daemon: Any) -> None:
    def subscribe(call: Any) -> Any:
        daemon.event("models", "added", model="early")
        return {"subscription": "s1", "revision": 9}

    daemon.handlers["events.subscribe"] = subscribe
    async with AsyncClient() as client:
        async with client.events() as events:
            assert events.revision == 9
            assert (await anext(events)).raw["model"] == "early"
            daemon.broadcast(
                protocol.notification(protocol.EVENTS_LOST, {"subscription": "s1", "count": 4})
            )
            daemon.event("models", "removed")
            assert (await anext(events)).type == "removed"
            assert events.lost == 4
        await client.ping()
        assert daemon.asked("events.unsubscribe") == [{"subscription": "s1"}]
    assert daemon.asked("events.subscribe") == [{"topics": list(protocol.TOPICS)}]


async def test_a_large_prompt_and_a_large_answer(daemon: Any) -> None:
    daemon.handlers["tokenize"] = lambda call: {"tokens": [len(call.params["text"])] * 500_000}
    async with AsyncClient() as client:
        tokens = await client.tokenize("demo", "ä" * 3_000_000)
    assert (len(tokens), tokens[0]) == (500_000, 3_000_000)


async def test_two_tasks_may_not_read_one_stream(daemon: Any) -> None:
    daemon.handlers["chat"] = _endless
    async with AsyncClient() as client, client.chat("demo", HELLO, stream=True) as stream:
        await anext(stream)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.result)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="another task"):
                await client._connection.next(stream._id)
            tasks.cancel_scope.cancel()


async def test_nobody_listens(socket_path: str) -> None:
    with pytest.raises(hybridctl.DaemonNotRunning, match="start it with"):
        async with AsyncClient(socket_path):
            pass


async def test_outside_of_async_with(daemon: Any) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await AsyncClient().ping()


async def test_the_names_of_the_original_system(daemon: Any) -> None:
    async with AsyncClient() as manager:
        assert await manager.load_model("demo")
        assert await manager.generate_response("demo", "Hi", max_tokens=3) == "Hello, wörld"
        assert await manager.unload_model("demo") is True
        assert await manager.load_model_hybrid("demo")
        assert await manager.generate_response_hybrid("demo", "Hi") == "Hello, wörld"
        assert await manager.unload_model_hybrid("demo") is True


async def test_asyncios_own_cancellation(daemon: Any, anyio_backend: str) -> None:
    """Past anyio, as `asyncio.timeout` and `Task.cancel` do it."""
    if anyio_backend != "asyncio":
        return
    reached = threading.Event()
    daemon.handlers["generate"] = lambda call: (reached.set(), call.until_cancelled())

    async def asks() -> None:
        async with AsyncClient() as client:
            await client.generate("demo", "Hi")

    task = asyncio.create_task(asks())
    assert await anyio.to_thread.run_sync(reached.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _was_cancelled(daemon) == "generate"
