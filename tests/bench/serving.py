"""The two servers that tests/bench/huggingface.py compares, each in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from hybridctl import Client
from tests.bench.daemon import Daemon

# A template needs up to this long to have its libraries, and a server to be up.
_UP_S = 300.0
_POLL_S = 0.02


class Server(Protocol):
    """What answers chats."""

    def chat(self, text: str, max_tokens: int) -> int:
        """Ask, wait for the whole answer; returns how many tokens it has."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


def tokens_per_second(server: Server, texts: list[str], max_tokens: int) -> float:
    """All texts asked at once; tokens of all answers over the time to the last."""
    with ThreadPoolExecutor(len(texts)) as pool:
        began = time.perf_counter()
        made = sum(pool.map(lambda text: server.chat(text, max_tokens), texts))
        return made / (time.perf_counter() - began)


class Hybridd:
    """A daemon with one model directory; the model's options are in force from its first load."""

    def __init__(self, model: Path, load_options: dict[str, Any]) -> None:
        self._model = f"{model.parent.name}/{model.name}"
        self._options = load_options
        saved = dict(os.environ)
        os.environ["HYBRIDD_CATALOG_MODEL_DIRS"] = str(model.parent.parent)
        try:
            self.daemon = Daemon()
        finally:
            os.environ.clear()
            os.environ.update(saved)

    def client(self) -> Client:
        return Client(self.daemon.socket, timeout=_UP_S)

    def warm(self) -> None:
        """Wait until the template is up, with no model loaded."""
        with self.client() as client:
            client.load("hybridd/demo-hf")
            client.unload("*")

    def chat(self, text: str, max_tokens: int) -> int:
        with self.client() as client:
            reply = client.chat(
                self._model,
                [{"role": "user", "content": text}],
                max_tokens=max_tokens,
                temperature=0,
                ignore_eos=True,
                load_options=self._options,
            )
        return reply.usage.completion_tokens

    def generate(self, text: str, max_tokens: int) -> int:
        """As `chat`, without a template, and streamed: a frame for each token."""
        with (
            self.client() as client,
            client.generate(
                self._model,
                text,
                max_tokens=max_tokens,
                temperature=0,
                ignore_eos=True,
                stream=True,
                load_options=self._options,
            ) as stream,
        ):
            return sum(delta.tokens for delta in stream)

    def close(self) -> None:
        self.daemon.close()


class TransformersServe:
    """`transformers serve` of one model, as its own command starts it.

    Args:
        python: An interpreter with transformers and what its server needs: fastapi, uvicorn,
            openai, pydantic and accelerate.
    """

    def __init__(self, python: str, model: Path, dtype: str, threads: int, batching: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._model = str(model)
        code = "from transformers.cli.transformers import main; main()"
        command = [python, "-c", code, "serve", str(model), "--device", "cpu", "--dtype", dtype]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--continuous-batching"] if batching else []
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        environment.pop("PYTHONPATH", None)
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        deadline = time.monotonic() + _UP_S
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise RuntimeError(self.log.read().decode(errors="replace")[-2000:])
            time.sleep(_POLL_S)

    def _healthy(self) -> bool:
        try:
            return self._request("GET", "/health", None)[0] == 200
        except OSError:
            return False

    def _request(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_UP_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def chat(self, text: str, max_tokens: int) -> int:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": False,
        }
        status, content = self._request("POST", "/v1/chat/completions", body)
        if status != 200:
            raise RuntimeError(content.decode(errors="replace")[-2000:])
        return int(json.loads(content)["usage"]["completion_tokens"])

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
