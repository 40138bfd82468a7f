"""The asynchronous client against the scripted daemon, under trio and asyncio."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

from hybridctl import AsyncClient

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
        client.chat("demo", HELLO, stream=True)
        await client.ping()
    assert len(daemon.asked("chat")) == 2
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


async def test_outside_of_async_with(daemon: Any) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await AsyncClient().ping()


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
