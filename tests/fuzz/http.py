"""Random and broken HTTP connections against a real daemon: `python -m tests.fuzz.http [N] [SEED]`.

Each connection sends requests that are whole, bent, cut short, glued together or none at all, in
pieces, and then leaves, resets, or ends its half and reads what comes. The daemon has to live,
answer or close each one, and afterwards hold no descriptor, no request and no slot of them.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import trio

from hybridctl import Client
from tests.e2e.conftest import RealDaemon, check_end

AT_ONCE = 24
# A connection that ended its half is answered or closed; nothing waits so long.
NET_S = 60.0
MODEL = "fuzz"
_TARGETS = (
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
    "/api/tags",
    "/api/v1/models",
    "/api/v1/models/fuzz",
    "/api/v1/models/fuzz/load",
    "/api/v1/events",
    "/openapi.json",
    "/",
    "/%00",
    "/../../etc/passwd",
    "/api/v1/models/" + "a/" * 200,
)
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT", "X")
_HEADERS = (
    "Host: localhost",
    "Host: evil.example",
    "Host:",
    "Origin: null",
    "Origin: http://evil.example",
    "Content-Type: application/json",
    "Content-Type: text/plain",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Expect: 100-continue",
    "Connection: close",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Content-Length: 5",
    "Content-Length: 99999999999",
    "Content-Length: -1",
    "X-Filler: " + "x" * 3000,
)
_BODIES = (
    {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True},
    {"model": MODEL, "messages": [{"role": "user", "content": "x " * 50}], "max_tokens": 20},
    {"model": MODEL, "prompt": "once", "stream": True, "options": {"num_predict": 5}},
    {"model": MODEL, "input": ["a", "b"]},
    {"model": "no such model", "messages": []},
    {"model": MODEL, "messages": "none", "stream": "yes"},
    {},
)


def whole(rng: random.Random) -> bytes:
    """A request as a client may send it."""
    body = json.dumps(rng.choice(_BODIES)).encode()
    lines = [f"{rng.choice(_METHODS[:4])} {rng.choice(_TARGETS)} HTTP/1.1", "Host: localhost"]
    if rng.random() < 0.3:
        chunks = [body[i : i + 7] for i in range(0, len(body), 7)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Content-Type: application/json")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def composed(rng: random.Random) -> bytes:
    """Lines that are each known, put together by chance."""
    version = f"HTTP/{rng.choice('012')}.{rng.choice('019')}"
    lines = [f"{rng.choice(_METHODS)} {rng.choice(_TARGETS)} {version}"]
    lines += rng.choices(_HEADERS, k=rng.randrange(8))
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + rng.randbytes(rng.randrange(40))


def bent(rng: random.Random) -> bytes:
    """A whole request with some bytes changed, taken out or put in."""
    data = bytearray(whole(rng))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 9)]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case _:
                data[at:at] = rng.choice((b"\r\n", b"\n", b"\0", b": ", b"%", b"\r\n\r\n"))
    return bytes(data)


def sent(rng: random.Random) -> bytes:
    """What one connection sends."""
    kind = rng.randrange(10)
    if kind < 4:
        data = bent(rng)
    elif kind < 6:
        data = composed(rng)
    elif kind < 8:
        data = b"".join(whole(rng) for _ in range(rng.randrange(1, 4)))
    elif kind == 8:
        data = rng.randbytes(rng.randrange(1, 400))
    else:
        data = whole(rng)
    return data[: rng.randrange(1, len(data) + 1)] if rng.random() < 0.3 else data


async def connect(path: str, seed: int) -> str:
    """One connection, to its end; how it went."""
    rng = random.Random(seed)
    asked = data = sent(rng)
    stream = await trio.open_unix_socket(path)
    async with stream:
        try:
            while data:
                size = rng.randrange(1, 400)
                await stream.send_all(data[:size])
                data = data[size:]
                if rng.random() < 0.2:
                    await trio.lowlevel.checkpoint()
        except trio.BrokenResourceError:
            return "closed while it sent"
        match rng.randrange(3):
            case 0:
                return "left"
            case 1:
                linger = struct.pack("ii", 1, 0)
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return "reset"
        try:
            stream.socket.shutdown(socket.SHUT_WR)
            received = b""
            with trio.fail_after(NET_S):
                while piece := await stream.receive_some(65536):
                    received = received or piece
                    if b"text/event-stream" in piece and b"/events" in asked:
                        return "streams"
        except (OSError, trio.BrokenResourceError):
            return "closed"
    return f"answered {received[9:12].decode('ascii', 'replace')}" if received else "closed"


async def storm(path: str, count: int, seed: int) -> Counter[str]:
    """Many connections, `AT_ONCE` at a time."""
    ends: Counter[str] = Counter()
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int) -> None:
        async with limit:
            ends[await connect(path, seed * 1_000_003 + number)] += 1

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    return ends


def check_nothing_held(daemon: RealDaemon, before: int) -> None:
    """The daemon lives and holds nothing of clients that are gone."""
    until = time.monotonic() + NET_S
    with Client(daemon.socket) as client:
        client.ping()
        while time.monotonic() < until:
            busy = [m for m in client.loaded() if m.active_requests or m.queued_requests]
            held = len(os.listdir(f"/proc/{daemon.pid}/fd"))
            if not busy and held <= before:
                return
            client.ping()
    raise AssertionError(f"{len(busy)} models still busy, {held} descriptors held, {before} before")


def prepared(daemon: RealDaemon) -> int:
    """Have the model that is asked, loaded; descriptors that the daemon holds then."""
    with Client(daemon.socket) as client:
        client.load(MODEL)
        client.ping()
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def main() -> None:
    """Run it and print how the connections ended."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1_000_000)
    with tempfile.TemporaryDirectory() as directory:
        daemon = RealDaemon(Path(directory))
        (daemon.models / f"{MODEL}.echo").write_text("{}")
        daemon.start()
        try:
            before = prepared(daemon)
            ends = trio.run(storm, daemon.http_socket, count, seed)
            check_nothing_held(daemon, before)
        finally:
            check_end(daemon)
    print(f"{count} connections, seed {seed}")
    for end, times in ends.most_common():
        print(f"{times:7} {end}")


if __name__ == "__main__":
    main()
