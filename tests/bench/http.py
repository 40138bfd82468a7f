"""The gateway's cost: streams, first bytes, idle connections, and beside the JSON-RPC socket.

    python -m tests.bench.http [streams first idle rest socket server] [--rounds 5]

- `streams`: streamed chunks a second of the `echo` format on 1 and on 32 streams, over HTTP and
  over the JSON-RPC socket in turns; processor time of the daemon for each.
- `first`: from sending a chat to the first byte of its answer, the model loaded.
- `idle`: memory of 1,000 connections that wait for nothing.
- `rest`: memory of a daemon that serves nobody, with the gateway on.
- `socket`: one chat with the 0.5 B GGUF bench model over HTTP / over the socket.
- `server`: eight chats at once / `llama-server` (`LLAMA_CPP_BIN`).

Prints ratios measured side by side in one run; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from hybridctl import AsyncClient, Client
from tests.bench import gguf_llama_cpp as llama_cpp
from tests.bench.gguf import CHAT_CONTEXT, GENERATED
from tests.bench.gguf_measure import (
    SAMPLING,
    Prompts,
    Stream,
    first_token_s,
    pairs,
    processor_s,
    throughput_per_s,
)
from tests.bench.gguf_models import model_path
from tests.bench.gguf_ours import Daemon
from tests.e2e.conftest import RealDaemon, check_end

MODEL = "bench"
CHUNKS = 20_000
IDLE = 1000


async def chat_over_http(path: str, body: dict[str, Any]) -> Stream:
    """One streamed chat over the gateway's Unix socket: when each chunk came."""
    data = json.dumps({"stream": True, **body}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    arrivals: list[tuple[float, int]] = []
    stream = await trio.open_unix_socket(path)
    async with stream:
        began = time.perf_counter()
        await stream.send_all(head.encode() + data)
        status = b""
        async for received in stream:
            status = status or received
            count = received.count(b'"delta":{"content"')
            if count:
                arrivals.append((time.perf_counter(), count))
    if not arrivals:
        raise RuntimeError(f"no chunk came: {status[-500:]!r}")
    return Stream(began, arrivals)


def together(path: str, bodies: list[dict[str, Any]]) -> list[Stream]:
    """Chats side by side."""
    made: list[Stream] = []

    async def one(body: dict[str, Any]) -> None:
        made.append(await chat_over_http(path, body))

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            for body in bodies:
                nursery.start_soon(one, body)

    trio.run(all_of_them)
    return sorted(made, key=lambda stream: stream.began)


def over_socket(path: str, bodies: list[dict[str, Any]]) -> list[Stream]:
    """The same over JSON-RPC, all on one connection."""
    made: list[Stream] = []

    async def one(client: AsyncClient, body: dict[str, Any]) -> None:
        arrivals: list[tuple[float, int]] = []
        began = time.perf_counter()
        options = {k: v for k, v in body.items() if k not in ("model", "messages")}
        async with client.chat(body["model"], body["messages"], stream=True, **options) as deltas:
            async for delta in deltas:
                arrivals.append((time.perf_counter(), max(1, delta.tokens)))
        made.append(Stream(began, arrivals))

    async def all_of_them() -> None:
        async with AsyncClient(path) as client, trio.open_nursery() as nursery:
            for body in bodies:
                nursery.start_soon(one, client, body)

    trio.run(all_of_them)
    return sorted(made, key=lambda stream: stream.began)


class Echo:
    """A daemon with a model of the echo format that says many words."""

    def __init__(self, streams: int = 1, words: int = CHUNKS) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.daemon = RealDaemon(Path(self._directory.name))
        file = {"parallel": streams, "context_length": 4 * words + 1000}
        (self.daemon.models / f"{MODEL}.echo").write_text(json.dumps(file))
        self.daemon.start()
        self.words = words // streams
        with Client(self.daemon.socket) as client:
            client.load(
                MODEL,
                keepalive=-1,
                load_options={"context_length": 4 * words + 1000, "parallel": streams},
            )

    def bodies(self, streams: int) -> list[dict[str, Any]]:
        """What `streams` clients ask."""
        text = " ".join(f"word{n % 97}" for n in range(self.words))
        message = {"role": "user", "content": text}
        return [
            {"model": MODEL, "messages": [message], "max_tokens": self.words, "temperature": 0.0}
        ] * streams

    def measured(self, run: Callable[[], list[Stream]]) -> dict[str, float]:
        """Chunks a second, and the daemon's processor time for each."""
        before, began = processor_s(self.daemon.pid), time.perf_counter()
        made = run()
        seconds, spent = time.perf_counter() - began, processor_s(self.daemon.pid) - before
        chunks = sum(count for stream in made for _, count in stream.arrivals)
        return {"chunks": chunks / seconds, "processor": spent / chunks * 1e6}

    def close(self) -> None:
        check_end(self.daemon)
        self._directory.cleanup()


def streams(arguments: argparse.Namespace) -> None:
    """See the module."""
    for count in (1, 32):
        echo = Echo(count)
        bodies = echo.bodies(count)
        try:
            pairs(
                f"echo, {count} streams, HTTP / JSON-RPC",
                {"chunks": "/s", "processor": "us"},
                lambda e=echo, b=bodies: e.measured(lambda: together(e.daemon.http_socket, b)),
                lambda e=echo, b=bodies: e.measured(lambda: over_socket(e.daemon.socket, b)),
                arguments.rounds,
            )
        finally:
            echo.close()


def first(arguments: argparse.Namespace) -> None:
    """See the module."""
    echo = Echo(words=4)
    try:
        times = [
            first_token_s(together(echo.daemon.http_socket, echo.bodies(1))) * 1e3
            for _ in range(40 * arguments.rounds)
        ]
    finally:
        echo.close()
    times.sort()
    print(
        f"first chunk of a chat, {len(times)} times: p50 {statistics.median(times):.2f} ms, "
        f"p90 {times[len(times) * 9 // 10]:.2f} ms, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def memory_kib(pid: int, name: str = "Private") -> int:
    """KiB of a process: what is its own."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith(name))


def idle(arguments: argparse.Namespace) -> None:
    """See the module."""
    echo = Echo(words=4)

    async def hold() -> tuple[int, int]:
        before = memory_kib(echo.daemon.pid)
        async with trio.open_nursery():
            held = [await trio.open_unix_socket(echo.daemon.http_socket) for _ in range(IDLE)]
            request = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for stream in held:
                await stream.send_all(request)
                await stream.receive_some(65536)
            after = memory_kib(echo.daemon.pid)
            for stream in held:
                await stream.aclose()
        return before, after

    try:
        before, after = trio.run(hold)
        size = (after - before) / IDLE
        print(f"{IDLE} idle connections: {size:.1f} KiB each ({before} to {after} KiB)", flush=True)
    finally:
        echo.close()


def rest(arguments: argparse.Namespace) -> None:
    """See the module."""
    for setting in ({}, {"HYBRIDD_HTTP_SOCKET": "none"}):
        with tempfile.TemporaryDirectory() as directory:
            daemon = RealDaemon(Path(directory), HYBRIDD_HTTP_LISTEN="", **setting)
            daemon.start()
            try:
                with Client(daemon.socket) as client:
                    client.rescan()
                rows = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
                rss = next(int(row.split()[1]) for row in rows if row.startswith("VmRSS"))
                what = "off" if setting else "on"
                print(f"daemon at rest, HTTP {what}: {rss / 1024:.1f} MiB resident", flush=True)
            finally:
                check_end(daemon)


def socket(arguments: argparse.Namespace) -> None:
    """See the module."""
    path = model_path(arguments.model)
    daemon, prompts = Daemon(path.parent), Prompts()
    http = daemon.socket.replace("hybridd.sock", "http.sock")
    try:
        model = daemon.load(path, context_length=CHAT_CONTEXT, threads=arguments.threads)

        def body() -> list[dict[str, Any]]:
            messages = prompts.conversation(64)
            options = {"max_tokens": GENERATED, "ignore_eos": True, **SAMPLING}
            return [{"model": model, "messages": messages, **options}]

        def figures(run: Callable[[], list[Stream]]) -> dict[str, float]:
            (made,) = run()
            return {"tokens": (GENERATED - 1) / (made.last - made.first)}

        pairs(
            f"one chat, {path.stem}, HTTP / JSON-RPC",
            {"tokens": "t/s"},
            lambda: figures(lambda: together(http, body())),
            lambda: figures(lambda: over_socket(daemon.socket, body())),
            arguments.rounds,
        )
    finally:
        daemon.close()


def server(arguments: argparse.Namespace) -> None:
    """See the module."""
    path, count = model_path(arguments.model), 8
    daemon, prompts = Daemon(path.parent), Prompts()
    http = daemon.socket.replace("hybridd.sock", "http.sock")
    their = llama_cpp.Server(
        *("-m", str(path), "-np", str(count), "-c", str(CHAT_CONTEXT * count)),
        *("-t", str(arguments.threads)),
    )
    try:
        options = {"context_length": CHAT_CONTEXT, "parallel": count, "threads": arguments.threads}
        model = daemon.load(path, **options)

        def bodies() -> list[dict[str, Any]]:
            asked = {"max_tokens": GENERATED, "ignore_eos": True, **SAMPLING}
            return [
                {"model": model, "messages": prompts.conversation(llama_cpp.PROMPT), **asked}
                for _ in range(count)
            ]

        async def theirs_together(made: list[Stream], asked: list[dict[str, Any]]) -> None:
            async def one(body: dict[str, Any]) -> None:
                made.append(await their.chat(body))

            async with trio.open_nursery() as nursery:
                for body in asked:
                    nursery.start_soon(one, body)

        def theirs() -> list[Stream]:
            made: list[Stream] = []
            trio.run(theirs_together, made, bodies())
            return sorted(made, key=lambda stream: stream.began)

        def figures(made: list[Stream]) -> dict[str, float]:
            return {
                "throughput": throughput_per_s(made, GENERATED),
                "first token p50": first_token_s(made) * 1e3,
            }

        pairs(
            f"{count} chats at once, {path.stem}, {arguments.threads} threads, HTTP / llama-server",
            {"throughput": "t/s", "first token p50": "ms"},
            lambda: figures(together(http, bodies())),
            lambda: figures(theirs()),
            arguments.rounds,
        )
    finally:
        their.close()
        daemon.close()


PARTS = {part.__name__: part for part in (streams, first, idle, rest, socket, server)}


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--model", default="0.5b")
    arguments = parser.parse_args()
    for name in arguments.parts:
        if name == "server" and llama_cpp.program("llama-server") is None:
            print("server: left out, LLAMA_CPP_BIN names no llama-server")
            continue
        PARTS[name](arguments)


if __name__ == "__main__":
    main()
