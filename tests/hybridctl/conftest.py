"""A scripted daemon that keeps to docs/protocol.md: strict in what it takes and sends.

It refuses what the daemon's own methods refuse, answers each id once, cancels on request and on
disconnect; what a method does is a function that a test may replace.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hybridd.rpc.methods
from hybridctl.cli import main
from hybridd.rpc.registry import REGISTRY
from hybridd.wire import protocol
from hybridd.wire.errors import Cancelled, HybriddError, MethodNotFound
from hybridd.wire.framing import LineDecoder, decode_line, encode_line

assert hybridd.rpc.methods  # which registers them
WAIT_S = 20.0  # a bound for what must happen; nothing waits that long unless it is broken

MODEL = {
    "id": "hybridd/demo-gguf:F16",
    "aliases": [],
    "format": "gguf",
    "publisher": "hybridd",
    "name": "demo-gguf",
    "size_bytes": 5_000_000,
    "parameters": 2_500_000,
    "quantization": {"name": "F16", "bits_per_weight": 16.0},
    "architecture": "llama",
    "context_length": 512,
    "capabilities": ["completion", "chat"],
    "status": "available",
    "stale": False,
    "source": {"store": "demo", "path": "/models/demo.gguf"},
    "locations": [{"store": "demo", "path": "/models/demo.gguf"}],
    "modified_at": 1_700_000_000.0,
    "a_field_of_tomorrow": 1,
}
LOADED = {
    "id": MODEL["id"],
    "format": "gguf",
    "engine": "llama.cpp",
    "status": "loaded",
    "pid": 4711,
    "devices": [{"device": "cpu", "bytes": 9_000_000}],
    "memory": {"reserved_bytes": 20_000_000, "resident_bytes": 9_000_000, "peak_bytes": 9_500_000},
    "load_options": {},
    "context_length": 512,
    "parallel": 1,
    "active_requests": 0,
    "queued_requests": 0,
    "load_s": 0.4,
    "keepalive_s": 300.0,
    "expires_in_s": 240.0,
    "pinned": False,
    "notes": ["requests take turns: \x1b[31mit is old"],
}
HTTP = {
    "enabled": True, "listen": "127.0.0.1:4114", "problem": None, "changing": False,
    "addresses": ["http://127.0.0.1:4114", "unix:/run/hybridd/http.sock"],
    "token": "auto", "allow_origins": ["http://localhost:3000"], "allow_hosts": [],
}  # fmt: skip
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cached_tokens": 0}
TIMINGS = {
    "queue_s": 0.0, "load_s": 0.0, "prompt_s": 0.1, "first_token_s": 0.1, "generation_s": 0.2,
    "total_s": 0.3, "prompt_tokens_per_s": 30.0, "generation_tokens_per_s": 10.0,
}  # fmt: skip
DONE = {"model": MODEL["id"], "finish_reason": "stop", "usage": USAGE, "timings": TIMINGS}
WORDS = ("Hel", "lo, ", "wörld")


def _embed(call: Call) -> Any:
    given = call.params["input"]
    texts = [given] if isinstance(given, str) else given
    vectors = [[float(len(text)), -0.5] for text in texts]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"model": MODEL["id"], "embeddings": vectors, "dimensions": 2, "usage": usage}


def _rerank(call: Call) -> Any:
    documents = call.params["documents"]
    ranked = [{"index": i, "score": 0.5 - i} for i in range(len(documents))]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    top = call.params.get("top_n")
    return {"model": MODEL["id"], "results": ranked[:top], "usage": usage}


class Call:
    """One request in the hands of its handler."""

    def __init__(self, connection: Connection, id: int | str, method: str, params: Any) -> None:
        self.connection = connection
        self.id = id
        self.method = method
        self.params: dict[str, Any] = params
        self.cancelled = threading.Event()
        self.after: list[Callable[[], None]] = []  # done once the answer is sent

    def delta(self, seq: int, text: str = "", tokens: int = 1, **more: Any) -> None:
        carried = {"text": text, **more} if text else more
        params = {"id": self.id, "seq": seq, "tokens": tokens, "delta": carried}
        self.connection.send(protocol.notification(protocol.STREAM, params))

    def progress(self, **values: Any) -> None:
        params = {"id": self.id, **values}
        self.connection.send(protocol.notification(protocol.PROGRESS, params))

    def until_cancelled(self) -> None:
        """What a long request does: nothing, until somebody cancels it."""
        assert self.cancelled.wait(WAIT_S), "nobody cancelled the request"
        raise Cancelled("cancelled as asked")


class Connection:
    """One client, one reader thread, one thread for each request."""

    def __init__(self, daemon: FakeDaemon, sock: socket.socket) -> None:
        self.daemon = daemon
        self.sock = sock
        self.calls: dict[int | str, Call] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def send(self, message: Any) -> None:
        with self._lock, contextlib.suppress(OSError):  # the client may have gone
            self.sock.sendall(encode_line(message))

    def read(self) -> None:
        decoder = LineDecoder()
        try:
            while data := self.sock.recv(65536):
                decoder.feed(data)
                while (line := decoder.next_line()) is not None:
                    self._take(decode_line(line))
        except OSError:
            pass
        for call in list(self.calls.values()):
            call.cancelled.set()
            self.daemon.cancelled.put(call.method)
        for thread in self._threads:
            thread.join(WAIT_S)
        self.sock.close()

    def _take(self, message: dict[str, Any]) -> None:
        assert message["jsonrpc"] == "2.0"
        if message["method"] == protocol.CANCEL_REQUEST:
            call = self.calls.get(message["params"]["id"])
            if call is not None:
                self.daemon.cancelled.put(call.method)
                call.cancelled.set()
            return
        assert message["id"] not in self.calls
        call = Call(self, message["id"], message["method"], message["params"])
        self.calls[call.id] = call
        thread = threading.Thread(target=self._answer, args=(call,))
        self._threads.append(thread)
        thread.start()

    def _answer(self, call: Call) -> None:
        self.daemon.requests.append((call.method, call.params))
        try:
            reply = protocol.response(call.id, self.daemon.answer(call))
        except HybriddError as exc:
            reply = protocol.error_response(call.id, exc.to_wire())
        self.calls.pop(call.id, None)
        self.send(reply)
        for action in call.after:
            action()


class FakeDaemon:
    """Listens on `path`; `handlers` says what each method does.

    Attributes:
        requests: (method, params) in the order they came.
        cancelled: Methods whose requests were cancelled.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: queue.Queue[str] = queue.Queue()
        self.handlers: dict[str, Callable[[Call], Any]] = {
            "system.ping": lambda call: {"ok": True},
            "system.info": lambda call: self.info(),
            "system.shutdown": lambda call: {},
            "system.reload": lambda call: {"changed": ["a.b"], "restart_needed": []},
            "models.list": lambda call: {"models": [MODEL], "revision": 7},
            "models.show": self._show,
            "models.resolve": lambda call: {"id": MODEL["id"]},
            "models.rescan": self._rescan,
            "models.load": self._load,
            "models.loaded": lambda call: {"models": [LOADED]},
            "models.unload": lambda call: {"unloaded": [MODEL["id"]], "freed_bytes": 9_000_000},
            "jobs.list": lambda call: {"jobs": [{"job": "j1", "kind": "load", "state": "done"}]},
            "jobs.get": lambda call: {"job": call.params["job"], "state": "running"},
            "jobs.cancel": lambda call: {"job": call.params["job"], "state": "cancelled"},
            "jobs.wait": lambda call: {"job": call.params["job"], "state": "done"},
            "generate": self._generate,
            "chat": self._generate,
            "models.configure": lambda call: {**call.params, "model": MODEL["id"]},
            "embed": _embed,
            "rerank": _rerank,
            "tokenize": lambda call: {"tokens": list(call.params["text"].encode())},
            "detokenize": lambda call: {"text": bytes(call.params["tokens"]).decode()},
            "apply_template": lambda call: {"prompt": "<s>"},
            "events.subscribe": lambda call: {"subscription": "s1", "revision": 7},
            "events.unsubscribe": lambda call: {},
            "config.get": self._config_get,
            "config.set": lambda call: {"changed": [*call.params["values"]], "restart_needed": []},
            "config.unset": lambda call: {"changed": call.params["keys"], "restart_needed": []},
        }
        self.handlers |= {
            "http.status": lambda call: dict(HTTP),
            "http.token": lambda call: {"token": "a-new-one" if call.params else "a-token"},
            "http.link": lambda call: {
                "url": "http://127.0.0.1:4114/#code=c0de",
                "expires_in_s": 300.0,
            },
        }
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def answer(self, call: Call) -> Any:
        method = REGISTRY.methods.get(call.method)
        if method is None:
            raise MethodNotFound(f"no method {call.method}")
        method.check(call.params)
        return self.handlers[call.method](call)

    def asked(self, method: str) -> list[dict[str, Any]]:
        """Params of the requests for `method`."""
        return [params for name, params in self.requests if name == method]

    def event(self, topic: str, type: str, **values: Any) -> None:
        params = {"subscription": "s1", "seq": 1, "time": 0.0, "topic": topic, "type": type}
        self.broadcast(protocol.notification(protocol.EVENT, {**params, **values}))

    def broadcast(self, message: Any) -> None:
        for connection in list(self._connections):
            connection.send(message)

    def hang_up(self) -> None:
        """Close every connection, as a daemon that dies does."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(WAIT_S)
        self.hang_up()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()

    def info(self) -> dict[str, Any]:
        return {
            "name": "hybridd", "version": "0.1.0", "protocol": {"major": 1, "minor": 0},
            "pid": 4710, "started_at": 0.0, "uptime_s": 200.0, "socket": self.path,
            "formats": [
                {"name": "gguf", "available": True, "engine": "llama.cpp", "version": "0.3"},
                {"name": "huggingface", "available": False, "reason": "install it"},
            ],
            "devices": [{
                "id": "cpu", "kind": "cpu", "name": "CPU", "total_bytes": 16_000_000_000,
                "free_bytes": 4_000_000_000, "hybridd_bytes": 9_000_000, "templates_bytes": 0,
            }],
            "catalog": {"complete": True, "models": 1, "revision": 7, "watching": "inotify"},
            "features": [],
        }  # fmt: skip

    def _show(self, call: Call) -> Any:
        return {
            **MODEL,
            "metadata": {"general.name": "demo", "tokens": ["a"] * 3},
            "chat_template": "{{ messages }}",
            "files": [{"path": "/models/demo.gguf", "size_bytes": 5_000_000}],
            "settings": {},
            "notes": LOADED["notes"],
        }

    def _load(self, call: Call) -> Any:
        if call.params.get("wait") is False:
            return {"job": "j1"}
        if call.params.get("progress"):
            for done in (1, 2):
                call.progress(job="j1", stage="weights", done=done, total=2, fraction=done / 2)
        return LOADED

    def _rescan(self, call: Call) -> Any:
        return {"added": 1, "changed": 0, "removed": 2, "total": 3, "seconds_s": 0.1}

    def _generate(self, call: Call) -> Any:
        chat = call.method == "chat"
        if call.params.get("stream"):
            for seq, word in enumerate(WORDS):
                call.delta(seq, word)
            return {**DONE, "message": {"role": "assistant"}} if chat else DONE
        text = "".join(WORDS)
        if chat:
            return {**DONE, "message": {"role": "assistant", "content": text}}
        return {**DONE, "text": text}

    def _config_get(self, call: Call) -> Any:
        setting = {"value": 300, "source": "default", "live": True, "description": "how long"}
        return {"values": {"models.keepalive": setting}}

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(self, sock)
            self._connections.append(connection)
            thread = threading.Thread(target=connection.read)
            self._threads.append(thread)
            thread.start()


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A path short enough for a Unix socket, whatever the test is called."""
    directory = tempfile.mkdtemp(prefix="hctl")
    yield os.path.join(directory, "d.sock")
    shutil.rmtree(directory)


@pytest.fixture
def daemon(socket_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """A scripted daemon that the environment points to."""
    monkeypatch.setenv("HYBRIDD_SOCKET", socket_path)
    fake = FakeDaemon(socket_path)
    yield fake
    fake.close()


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    def run(*arguments: str, stdin: str | None = None) -> Ran:
        typed = io.StringIO(stdin or "")
        typed.isatty = lambda: stdin is None  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", typed)
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run
