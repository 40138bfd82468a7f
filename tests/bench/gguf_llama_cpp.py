"""llama.cpp's own programs, as the benchmark's other side. `LLAMA_CPP_BIN` names their folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import trio

from tests.bench.gguf_measure import Figures, Stream

PROMPT = 512


def program(name: str) -> Path | None:
    """One of llama.cpp's programs; None where it is not installed."""
    folder = os.environ.get("LLAMA_CPP_BIN")
    path = Path(folder) / name if folder else None
    return path if path is not None and path.exists() else None


def _output_of(command: list[str]) -> list[dict[str, Any]]:
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in made.stdout.splitlines() if line.startswith("{")]


def bench(path: Path, threads: int, generated: int) -> Figures:
    """`llama-bench`: one stream, and a prompt of `PROMPT` tokens."""
    command = [str(program("llama-bench")), "-m", str(path), "-t", str(threads), "-r", "1"]
    found = _output_of([*command, "-p", str(PROMPT), "-n", str(generated), "-o", "jsonl"])
    prompt, generation = sorted(found, key=lambda test: bool(test["n_gen"]))
    return {"prompt": prompt["avg_ts"], "generated": generation["avg_ts"]}


def batched_bench(
    path: Path, threads: int, streams: int, prompt: int, generated: int, context: int
) -> Figures:
    """`llama-batched-bench`: so many streams side by side."""
    command = [str(program("llama-batched-bench")), "-m", str(path), "-t", str(threads)]
    command += ["-c", str(context), "-npp", str(prompt), "-ntg", str(generated)]
    command += ["-npl", str(streams), "--output-format", "jsonl"]
    (found,) = _output_of(command)
    return {"prompt": found["speed_pp"], "generated": found["speed_tg"]}


class Server:
    """A `llama-server` on a port of the loopback; with `directory` one in router mode.

    Args:
        arguments: More of its options.
    """

    def __init__(self, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as chosen:
            self._port = chosen.getsockname()[1]
        command = [str(program("llama-server")), "--host", "127.0.0.1", "--port", str(self._port)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        self._process = subprocess.Popen(
            [*command, "--no-ui", *arguments], stdout=self._log, stderr=self._log
        )
        while not self._healthy():
            if self._process.poll() is not None:
                self._log.seek(0)
                raise RuntimeError(self._log.read()[-2000:].decode("utf-8", "replace"))
            time.sleep(0.05)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health"):
                return True
        except (urllib.error.URLError, OSError):
            return False

    async def chat(self, body: dict[str, Any], texts: list[str] | None = None) -> Stream:
        """One streamed chat; the texts of its chunks are added to `texts`."""
        data = json.dumps({"stream": True, **body}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
            "Connection: close\r\n\r\n"
        )
        arrivals: list[tuple[float, int]] = []
        began = time.perf_counter()
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with stream:
            await stream.send_all(head.encode() + data)
            pending = b""
            async for received in stream:
                now = time.perf_counter()
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    text = _content(line)
                    if text:
                        arrivals.append((now, 1))
                        if texts is not None:
                            texts.append(text)
        if not arrivals:
            raise RuntimeError("llama-server sent no tokens")
        return Stream(began, arrivals)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


def _content(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        if line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
            raise RuntimeError(f"llama-server answered {line!r}")
        return ""
    choices = json.loads(line[6:])["choices"]
    return (choices[0].get("delta") or {}).get("content") or "" if choices else ""
