"""What holds for both clients (of the asynchronous one, under trio and asyncio alike)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import anyio
import pytest

import hybridctl
from hybridctl import AsyncClient, Client
from hybridd.wire import protocol

pytestmark = pytest.mark.anyio

ID = "hybridd/demo-gguf:F16"
HELLO = [{"role": "user", "content": "Hi"}]


class Awaited:
    """A blocking client, or what it opened, with the face of the asynchronous one."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._made, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: Awaited(found(*args, **kwargs))

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self if hasattr(self._made, "__next__") else self._made

    async def __aenter__(self) -> Awaited:
        self._made.__enter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._made.__exit__(*error)

    def __aiter__(self) -> Awaited:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._made)
        except StopIteration:
            raise StopAsyncIteration from None


@pytest.fixture(params=["trio", "asyncio", "blocking"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def anyio_backend(kind: str) -> str:
    return "trio" if kind == "blocking" else kind


@pytest.fixture
def connect(kind: str) -> Callable[..., Any]:
    """Makes a client, whose methods are to be awaited."""
    if kind != "blocking":
        return AsyncClient
    return lambda *args, **kwargs: Awaited(Client(*args, **kwargs))


def _endless(call: Any) -> None:
    call.delta(0, "Hel")
    call.until_cancelled()


async def _was_cancelled(daemon: Any) -> str:
    return await anyio.to_thread.run_sync(lambda: daemon.cancelled.get(timeout=20))


async def test_every_method_gives_what_was_answered(daemon: Any, connect: Any) -> None:
    async with connect() as client:
        await client.ping()
        assert (await client.info()).pid == 4710
        (model,) = await client.list(format="gguf", all=True)
        assert (model.id, model.quantization.name) == (ID, "F16")
        assert (await client.show("demo")).chat_template == "{{ messages }}"
        assert await client.resolve("demo") == ID
        made = await client.configure("demo", pin=True, alias=None)
        assert made == {"model": ID, "pin": True, "alias": None}
        assert (await client.rescan()).removed == 2
        assert (await client.load("demo")).load_s == 0.4
        assert (await client.load("demo", wait=False)).job == "j1"
        assert (await client.loaded(all=True))[0].memory["resident_bytes"] == 9_000_000
        assert (await client.unload("demo", force=True)).unloaded == [ID]
        assert await client.tokenize("demo", "ab", special=True) == [97, 98]
        assert await client.detokenize("demo", [97, 98]) == "ab"
        assert await client.apply_template("demo", HELLO) == "<s>"
        embedded = await client.embed("demo", ["a", "bc"], dimensions=2, keepalive="5m")
        assert (embedded.embeddings, embedded.dimensions) == ([[1.0, -0.5], [2.0, -0.5]], 2)
        assert embedded.usage.prompt_tokens == 3
        ranked = await client.rerank("demo", "q", ["x", "y"], top_n=1)
        assert [(one.index, one.score) for one in ranked.results] == [(0, 0.5)]
        assert [job.job for job in await client.jobs()] == ["j1"]
        job = await client.job("j1")
        assert (job.job, job.state) == ("j1", "running")
        assert (await client.cancel_job(job)).state == "cancelled"
        assert (await client.wait_job("j1", on_progress=lambda p: None)).state == "done"
        assert (await client.config_get())["models.keepalive"].value == 300
        assert (await client.config_set({"a.b": 1}, persist=False)).changed == ["a.b"]
        assert (await client.config_unset("a.b")).changed == ["a.b"]
        assert (await client.config_reload()).changed == ["a.b"]
        assert await client.call("models.resolve", model="demo") == {"id": ID}
        done = await client.generate("demo", "Hi", max_tokens=4)
        assert (done.text, done.finish_reason) == ("Hello, wörld", "stop")
        assert done.usage.total_tokens == 5
        said = await client.chat("demo", HELLO)
        assert (said.text, said.message["role"]) == ("Hello, wörld", "assistant")
        await client.shutdown()


async def test_the_names_of_the_original_system(daemon: Any, connect: Any) -> None:
    async with connect() as manager:
        assert (await manager.load_model("demo", context_length=64)).id == ID
        assert await manager.generate_response("demo", "Hi", max_tokens=3) == "Hello, wörld"
        assert await manager.unload_model("demo") is True
        daemon.handlers["models.unload"] = lambda call: {"unloaded": [], "freed_bytes": 0}
        assert await manager.unload_model_hybrid("demo") is False
        assert await manager.load_model_hybrid("demo")
        assert await manager.generate_response_hybrid("demo", "Hi") == "Hello, wörld"


async def test_all_pages_of_a_long_list_are_read(daemon: Any, connect: Any) -> None:
    pages = {
        None: {"models": [{"id": "a"}], "next_cursor": "1"},
        "1": {"models": [{"id": "b"}], "next_cursor": "2"},
        "2": {"models": [{"id": "c"}]},
    }
    daemon.handlers["models.list"] = lambda call: pages[call.params.get("cursor")]
    async with connect() as client:
        assert [m.id for m in await client.list()] == ["a", "b", "c"]
        assert [m.id for m in await client.list(limit=1)] == ["a"]


async def test_a_stream_iterates_and_gives_the_whole_result(daemon: Any, connect: Any) -> None:
    async with connect() as client:
        async with client.generate("demo", "Hi", stream=True) as stream:
            first = await anext(stream)
            assert (first.text, stream.text, stream.done) == ("Hel", "Hel", False)
            assert [delta.text async for delta in stream] == ["lo, ", "wörld"]
            result = await stream.result()
        assert (result.text, result.usage.completion_tokens) == ("Hello, wörld", 2)
        assert await stream.result() == result
        said = await client.chat("demo", HELLO, stream=True)
        message = {"role": "assistant", "content": "Hello, wörld"}
        assert (await said.result()).message == message
        assert said.tokens == 3
    assert daemon.cancelled.empty()


async def test_two_streams_and_a_call_share_the_connection(daemon: Any, connect: Any) -> None:
    """Read one to its end first: what comes for the other meanwhile is kept."""
    async with connect() as client:
        one = await client.generate("demo", "1", stream=True)
        two = await client.generate("demo", "2", stream=True)
        assert (await two.result()).text == "Hello, wörld"
        await client.ping()
        assert [delta.text async for delta in one] == ["Hel", "lo, ", "wörld"]


async def test_leaving_a_stream_cancels_it(daemon: Any, connect: Any) -> None:
    daemon.handlers["chat"] = _endless
    async with connect() as client:
        async with client.chat("demo", HELLO, stream=True) as stream:
            assert (await anext(stream)).text == "Hel"
        assert await _was_cancelled(daemon) == "chat"
        await client.ping()  # the answer of the cancelled request is thrown away
        with pytest.raises(hybridctl.Cancelled):
            await stream.result()
        assert [delta async for delta in stream] == []


async def test_cancel_ends_the_iteration_quietly(daemon: Any, connect: Any) -> None:
    daemon.handlers["generate"] = _endless
    async with connect() as client:
        stream = await client.generate("demo", "Hi", stream=True)
        texts = []
        async for delta in stream:
            texts.append(delta.text)
            stream.cancel()
        assert (texts, stream.text) == (["Hel"], "Hel")
        with pytest.raises(hybridctl.Cancelled):
            await stream.result()


async def test_leaving_the_client_cancels_what_runs(daemon: Any, connect: Any) -> None:
    daemon.handlers["generate"] = _endless
    async with connect() as client:
        stream = await client.generate("demo", "Hi", stream=True)
        await anext(stream)
    assert await _was_cancelled(daemon) == "generate"
    with pytest.raises(hybridctl.ConnectionLost):
        await anext(stream)


async def test_an_error_in_the_middle_of_a_stream_is_raised_by_it(
    daemon: Any, connect: Any
) -> None:
    def dies(call: Any) -> None:
        call.delta(0, "Hel")
        raise hybridctl.WorkerDied("the worker died", signal=9)

    daemon.handlers["generate"] = dies
    async with connect() as client:
        stream = await client.generate("demo", "Hi", stream=True)
        assert (await anext(stream)).text == "Hel"
        with pytest.raises(hybridctl.WorkerDied) as caught:
            await anext(stream)
        assert caught.value.data == {"signal": 9}
        assert stream.text == "Hel"


async def test_errors_are_typed(daemon: Any, connect: Any) -> None:
    """And nothing is around them: `except ModelNotFound` finds them outside of the client too."""

    def missing(call: Any) -> None:
        raise hybridctl.ModelNotFound("no such model", model="x", suggestions=["y"])

    daemon.handlers["models.show"] = missing
    async with connect() as client:
        with pytest.raises(hybridctl.MethodNotFound):
            await client.call("models.frobnicate")
        with pytest.raises(hybridctl.InvalidParams):
            await client.call("models.show", model="x", modle="y")
        with pytest.raises(hybridctl.InvalidParams):
            await client.list(progress=True)
    with pytest.raises(hybridctl.ModelNotFound) as caught:
        async with connect() as client:
            await client.show("x")
    assert (caught.value.kind, caught.value.data["suggestions"]) == ("model_not_found", ["y"])
    with pytest.raises(KeyError):
        async with connect():
            raise KeyError("the caller's own")


async def test_silence_is_bounded_and_cancels(daemon: Any, connect: Any) -> None:
    daemon.handlers["generate"] = lambda call: call.until_cancelled()
    async with connect(timeout=0.05) as client:
        with pytest.raises(hybridctl.RequestTimeout):
            await client.generate("demo", "Hi")
        assert await _was_cancelled(daemon) == "generate"


async def test_a_dead_daemon_ends_everything_and_the_next_call_connects_again(
    daemon: Any, connect: Any
) -> None:
    daemon.handlers["chat"] = _endless
    daemon.handlers["generate"] = lambda call: (daemon.hang_up(), call.until_cancelled())
    async with connect() as client:
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


async def test_events_are_routed_even_when_they_overtake_the_subscription(
    daemon: Any, connect: Any
) -> None:
    def subscribe(call: Any) -> Any:
        daemon.event("models", "added", model="early")
        return {"subscription": "s1", "revision": 9}

    daemon.handlers["events.subscribe"] = subscribe
    async with connect() as client:
        async with client.events("models") as events:
            assert events.revision == 9
            assert (await anext(events)).raw["model"] == "early"
            daemon.event("models", "removed", model="late")
            await client.ping()
            assert (await anext(events)).type == "removed"
            daemon.broadcast(
                protocol.notification(protocol.EVENTS_LOST, {"subscription": "s1", "count": 4})
            )
            daemon.event("models", "added")
            await anext(events)
            assert events.lost == 4
        assert [event async for event in events] == []
        await client.ping()
        assert daemon.asked("events.unsubscribe") == [{"subscription": "s1"}]
        await client.events()
    topics = [asked["topics"] for asked in daemon.asked("events.subscribe")]
    assert topics == [["models"], list(protocol.TOPICS)]


async def test_a_large_prompt_and_a_large_answer(daemon: Any, connect: Any) -> None:
    daemon.handlers["tokenize"] = lambda call: {"tokens": [len(call.params["text"])] * 500_000}
    async with connect() as client:
        tokens = await client.tokenize("demo", "ä" * 3_000_000)
    assert (len(tokens), tokens[0]) == (500_000, 3_000_000)


async def test_nobody_listens(socket_path: str, connect: Any) -> None:
    with pytest.raises(hybridctl.DaemonNotRunning, match="start it with") as caught:
        async with connect(socket_path):
            pass
    command = f"HYBRIDD_SOCKET={socket_path} hybridd"
    assert caught.value.data == {"socket": socket_path, "command": command}
    assert command in caught.value.message


async def test_a_socket_path_that_is_too_long_says_so(connect: Any) -> None:
    with pytest.raises(ValueError, match="107"):
        connect("/tmp/" + "x" * 200)
