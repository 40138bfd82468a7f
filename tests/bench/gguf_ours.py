"""Our side of the GGUF benchmark: the engine by itself, a worker by itself, a whole daemon.

The first two run in a process of their own, which is this module again:

    python -m tests.bench.gguf_ours engine|worker DESCRIPTOR
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from hybridctl import AsyncClient, Client
from hybridd.worker.channel import Channel
from tests.bench.gguf_measure import Figures, Prompts, Stream

FACTORY = "hybridd.backends.gguf.engine.generator:GGUFEngine"


def request(number: int, prompt: str, tokens: int, **options: Any) -> dict[str, Any]:
    """A generation as a worker gets it."""
    wanted = {"max_tokens": tokens, "ignore_eos": True, "seed": number, **options}
    return {"id": number, "kind": "generate", "prompt": prompt, "options": wanted}


class _Child:
    """A process of this module with a channel to it."""

    def __init__(self, mode: str, path: Path, load_options: dict[str, Any]) -> None:
        ours, its = socket.socketpair()
        self._channel = Channel(ours)
        command = [sys.executable, "-m", "tests.bench.gguf_ours", mode, str(its.fileno())]
        self._process = subprocess.Popen(
            command, pass_fds=(its.fileno(),), stderr=subprocess.DEVNULL
        )
        its.close()
        spec: dict[str, Any] = {"model": path.stem, "format": "gguf", "path": str(path)}
        spec["defaults"] = {}
        spec["load_options"] = load_options
        spec["identity"] = path.stem
        spec["kv"] = {"host_cache_bytes": 0, "persist_bytes": 0, "persist_dir": ""}
        self._channel.send({"op": "load", "factory": FACTORY, "extra": "gguf", "spec": spec})
        self._number = 0

    def _requests(self, prompts: Sequence[str], tokens: int) -> list[dict[str, Any]]:
        made = []
        for prompt in prompts:
            self._number += 1
            made.append(request(self._number, prompt, tokens))
        return made

    def _receive(self) -> dict[str, Any]:
        frame = self._channel.receive()
        if frame is None:
            raise RuntimeError("the process ended; run it by hand to see why")
        if frame.get("op") in ("failed", "error"):
            raise RuntimeError(frame["error"]["message"])
        made: dict[str, Any] = frame
        return made

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.wait()


class EngineProcess(_Child):
    """The engine driven by its protocol alone: submit, step."""

    def __init__(self, path: Path, **load_options: Any) -> None:
        super().__init__("engine", path, load_options)
        self._receive()  # it is up

    def run(self, prompts: Sequence[str], tokens: int) -> list[Stream]:
        """Submit all at once and step until all are done."""
        self._channel.send({"op": "run", "requests": self._requests(prompts, tokens)})
        return [Stream(began, [(t, n) for t, n in got]) for began, got in self._receive()["made"]]


def _engine_process(channel: Channel) -> None:
    from hybridd.worker.loop import make_engine

    frame = channel.receive()
    engine = make_engine(frame["factory"], frame["extra"])
    engine.load(frame["spec"], lambda *_: None)
    channel.send({"op": "ready"})
    while (frame := channel.receive()) is not None:
        arrivals: dict[int, list[tuple[float, int]]] = {}
        began = time.perf_counter()
        for each in frame["requests"]:
            arrivals[each["id"]] = []
            engine.submit(each)
        while engine.busy:
            outputs = engine.step()
            now = time.perf_counter()
            for output in outputs:
                if "error" in output:
                    channel.send({"op": "error", "error": output["error"]})
                if "delta" in output and (tokens := output["delta"].tokens):
                    arrivals[output["id"]].append((now, tokens))
        channel.send({"op": "made", "made": [(began, got) for got in arrivals.values()]})
    engine.close()


class WorkerProcess(_Child):
    """The real worker's loop, which notes its main thread's time outside `llama_decode`."""

    def __init__(self, path: Path, **load_options: Any) -> None:
        super().__init__("worker", path, load_options)
        while self._receive().get("op") != "ready":
            pass

    def beside_decode_ms(self, prompts: Sequence[str], tokens: int) -> Figures:
        """Milliseconds of the main thread's processor time a token, outside and inside."""
        requests = self._requests(prompts, tokens)
        self._channel.send(*({"op": "start", "request": each} for each in requests))
        left = len(requests)
        while left:
            left -= self._receive().get("op") == "done"
        self._channel.send({"op": "stats"})
        while (frame := self._receive()).get("op") != "stats":
            pass
        rows: list[tuple[int, float, float]] = frame["decodes"]
        beside, inside = [], []
        for (n, _, after), (m, before, end) in itertools.pairwise(rows):
            if n == m == len(prompts):  # between two steps that generated for every stream
                beside.append(before - after)
                inside.append(end - before)
        if not beside:
            raise RuntimeError("the engine never generated for all streams in one step")
        scale = 1e3 / len(beside) / len(prompts)
        return {"beside": sum(beside) * scale, "inside": sum(inside) * scale}


def _worker_process(channel: Channel) -> None:
    from llama_cpp import llama_cpp as llama

    from hybridd.worker.loop import Worker
    from hybridd.worker.mailbox import Mailbox

    rows: list[tuple[int, float, float]] = []
    decode = llama.llama_decode

    def noted(context: Any, batch: Any) -> Any:
        before = time.thread_time()
        result = decode(context, batch)
        rows.append((batch.n_tokens, before, time.thread_time()))
        return result

    # Before the engine is imported, whichever way it names the function.
    llama.llama_decode = noted

    class Noting(Worker):
        def _stats(self, engine: Any) -> dict[str, Any]:
            found = {"op": "stats", "decodes": list(rows)}
            rows.clear()
            return found

    mailbox = Mailbox(channel)
    mailbox.start()
    Noting(channel, mailbox).run()


class Daemon:
    """A daemon with directories of its own.

    Args:
        models: The directory of its models.
        settings: Environment, such as HYBRIDD_LIMITS_MAX_LOADED.
    """

    def __init__(self, models: Path, **settings: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        path = self._directory.name
        self.socket = f"{path}/hybridd/hybridd.sock"
        names = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HYBRIDD_")},
            **dict.fromkeys((*names, "XDG_CACHE_HOME", "HOME"), path),
            "HYBRIDD_CATALOG_MODEL_DIRS": str(models),
            "NOTIFY_SOCKET": f"{path}/n",
            **settings,
        }
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(f"{path}/n")
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hybridd", "--set", "log.level=error"], env=environment
            )
            while b"READY=1" not in notify.recv(4096):
                pass
        with Client(self.socket) as client:
            client.rescan()

    def load(self, path: Path, **load_options: Any) -> str:
        """Load the model of a file for good; returns its id."""
        with Client(self.socket) as client:
            for model in client.list():
                if Path(model.source.path).name == path.name:
                    client.load(model.id, keepalive=-1, load_options=load_options)
                    return model.id
        raise RuntimeError(f"the daemon did not find {path.name}")

    def generate(self, model: str, prompts: Sequence[str], tokens: int) -> list[Stream]:
        """Completions side by side, over one connection read by one process."""
        return self._run(
            "generate", model, prompts, max_tokens=tokens, ignore_eos=True, temperature=0.8
        )

    def chat(
        self, model: str, conversations: Sequence[Any], texts: list[str] | None = None, **more: Any
    ) -> list[Stream]:
        """The same with chats; the text of each is added to `texts`."""
        return self._run("chat", model, conversations, texts, **more)

    def _run(
        self,
        method: str,
        model: str,
        contents: Sequence[Any],
        texts: list[str] | None = None,
        **options: Any,
    ) -> list[Stream]:
        made: list[Stream] = []

        async def one(client: AsyncClient, content: Any) -> None:
            arrivals: list[tuple[float, int]] = []
            stream = Stream(time.perf_counter(), arrivals)
            made.append(stream)
            asked = getattr(client, method)(model, content, stream=True, **options)
            async with asked as deltas:
                async for delta in deltas:
                    if delta.tokens:
                        arrivals.append((time.perf_counter(), delta.tokens))
                if texts is not None:
                    texts.append(deltas.text)

        async def all_of_them() -> None:
            async with AsyncClient(self.socket) as client, trio.open_nursery() as nursery:
                for content in contents:
                    nursery.start_soon(one, client, content)

        trio.run(all_of_them)
        return made

    def close(self) -> None:
        """End it and its workers."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self._directory.cleanup()


def short_prompts(prompts: Prompts, streams: int, tokens: int) -> list[str]:
    """One text for each stream."""
    return [prompts.text(tokens) for _ in range(streams)]


def main() -> None:
    mode, descriptor = sys.argv[1:]
    channel = Channel.from_fd(int(descriptor))
    {"engine": _engine_process, "worker": _worker_process}[mode](channel)
    channel.close()


if __name__ == "__main__":
    main()
