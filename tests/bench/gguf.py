"""The GGUF engine beside llama.cpp's own programs, on random-weight models of real shapes.

    python -m tests.bench.gguf speed|socket|server|cpu|switch… [--model 0.5b|0.1b] [--rounds 5]
                               [--streams 1 8] [--threads 2]
                               [--server-options TEXT]

Every line is a median of ours, one of theirs, and the median of the ratios of runs side by side.
LLAMA_CPP_BIN names the folder with `llama-bench`, `llama-batched-bench` and `llama-server`; where
the first two are missing, a plain loop over `llama_decode` (`tests.bench.gguf_decode`) stands in.

speed   the engine in a process of its own, driven by its protocol, with sampling at the protocol's
        defaults, against llama-bench (1 stream; nothing is sampled there) and llama-batched-bench
        (100-token prompts): generated tokens/s, and at 1 stream those of a 512-token prompt.
socket  the same through a daemon's socket, read by one process with hybridctl's client.
server  8 chats with distinct 100-token prompts at once, and the second turn of a conversation of
        2,000 tokens, through our socket and through llama-server's (-np 8), one client each.
cpu     processor time a token: of the daemon, and of a worker's main thread outside llama_decode.
switch  with room for one model: from a request for the one that is not loaded to its first token,
        against llama-server's router mode (--models-max 1); context 4096, one stream.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from tests.bench import gguf_decode
from tests.bench import gguf_llama_cpp as llama_cpp
from tests.bench.gguf_measure import (
    SAMPLING,
    Figures,
    Prompts,
    Stream,
    first_token_s,
    generated_per_s,
    pairs,
    processor_s,
    throughput_per_s,
)
from tests.bench.gguf_models import SHAPES, model_path
from tests.bench.gguf_ours import Daemon, EngineProcess, WorkerProcess

GENERATED = 64
PROMPT = 100  # tokens of a prompt where several streams run
CONTEXT = 512  # of one of them
CHAT_CONTEXT = 4096
FIRST_TURN, SECOND_TURN = 2000, 20  # tokens
Run = Callable[[list[str], int], list[Stream]]


def options(arguments: argparse.Namespace, streams: int, context: int) -> dict[str, Any]:
    """Our load options for what the other side gets by its arguments."""
    return {
        "context_length": context,
        "parallel": streams,
        "kv_cells": context * streams,
        "threads": arguments.threads,
    }


# ---------------------------------------------------------------- speed, socket


def compare_speed(arguments: argparse.Namespace, what: str, streams: int, run: Run) -> None:
    """Generated tokens per second, and at one stream also those of a prompt."""
    path, threads = model_path(arguments.model), arguments.threads
    prompts = Prompts()
    run([prompts.text(8)], 4)  # warm up, as the other programs do
    units = {"generated": "t/s"} | ({"prompt": "t/s"} if streams == 1 else {})

    def ours() -> Figures:
        length = 8 if streams == 1 else PROMPT
        made = run([prompts.text(length) for _ in range(streams)], GENERATED)
        found = {"generated": generated_per_s(made)}
        if streams == 1:
            made = run([prompts.text(llama_cpp.PROMPT)], 1)
            found["prompt"] = llama_cpp.PROMPT / first_token_s(made)
        return found

    def theirs() -> Figures:
        if streams == 1 and llama_cpp.program("llama-bench"):
            return llama_cpp.bench(path, threads, GENERATED)
        if streams > 1 and llama_cpp.program("llama-batched-bench"):
            context = CONTEXT * streams
            return llama_cpp.batched_bench(path, threads, streams, PROMPT, GENERATED, context)
        shared = {"threads": str(threads), "prompt": str(PROMPT)}
        setting = gguf_decode.parsed("unified=0", shared)
        return gguf_decode.in_process(path, streams, setting)

    name = "llama-bench" if streams == 1 else "llama-batched-bench"
    if not llama_cpp.program(name):
        name = "a loop over llama_decode"
    title = f"{what}, {streams} streams, {threads} threads, {path.stem}, against {name}"
    pairs(title, units, ours, theirs, arguments.rounds)


def speed(arguments: argparse.Namespace) -> None:
    """See the module."""
    for streams in arguments.streams:
        load_options = options(arguments, streams, 1024 if streams == 1 else CONTEXT)

        def run(prompts: list[str], tokens: int) -> list[Stream]:
            # A process each time, as on the other side: one is up to 4 % faster than another for
            # all its life, by where its memory happens to lie.
            engine = EngineProcess(model_path(arguments.model), **load_options)  # noqa: B023
            try:
                engine.run([Prompts(0).text(8)] * streams, 4)  # noqa: B023 - used in this turn
                return engine.run(prompts, tokens)
            finally:
                engine.close()

        compare_speed(arguments, "engine", streams, run)


def socket(arguments: argparse.Namespace) -> None:
    """See the module."""
    path = model_path(arguments.model)
    for streams in arguments.streams:
        daemon = Daemon(path.parent)
        try:
            load_options = options(arguments, streams, 1024 if streams == 1 else CONTEXT)
            model = daemon.load(path, **load_options)

            def run(prompts: list[str], tokens: int) -> list[Stream]:
                return daemon.generate(model, prompts, tokens)  # noqa: B023 - used in this turn

            compare_speed(arguments, "socket", streams, run)
        finally:
            daemon.close()


# ---------------------------------------------------------------- server


def server(arguments: argparse.Namespace) -> None:
    """See the module."""
    path, streams = model_path(arguments.model), max(arguments.streams)
    daemon = Daemon(path.parent)
    their = llama_cpp.Server(
        *("-m", str(path), "-np", str(streams), "-c", str(CHAT_CONTEXT * streams)),
        *("-t", str(arguments.threads), *arguments.server_options),
    )
    prompts = Prompts()
    try:
        model = daemon.load(path, **options(arguments, streams, CHAT_CONTEXT))
        sides = [_OurChats(daemon, model), _TheirChats(their)]
        for side in sides:
            side.together([prompts.conversation(8)], 4)

        def chats(side: Any) -> Figures:
            made = side.together([prompts.conversation(PROMPT) for _ in range(streams)], GENERATED)
            return {
                "throughput": throughput_per_s(made, GENERATED),
                "first token p50": first_token_s(made) * 1e3,
            }

        def second_turn(side: Any) -> Figures:
            messages = prompts.conversation(FIRST_TURN)
            texts: list[str] = []
            first = first_token_s(side.together([messages], 16, texts))
            answer = {"role": "assistant", "content": "".join(texts)}
            messages = [*messages, answer, *prompts.conversation(SECOND_TURN)]
            second = first_token_s(side.together([messages], 16))
            return {"first turn": first * 1e3, "second turn": second * 1e3}

        mine, other = sides
        where = f"{arguments.threads} threads, {path.stem}, against llama-server"
        pairs(
            f"{streams} chats at once, {where}",
            {"throughput": "t/s", "first token p50": "ms"},
            lambda: chats(mine),
            lambda: chats(other),
            arguments.rounds,
        )
        pairs(
            f"conversation of {FIRST_TURN} tokens, time to first token, {where}",
            {"first turn": "ms", "second turn": "ms"},
            lambda: second_turn(mine),
            lambda: second_turn(other),
            arguments.rounds,
        )
    finally:
        their.close()
        daemon.close()


class _OurChats:
    def __init__(self, daemon: Daemon, model: str) -> None:
        self._daemon, self._model = daemon, model

    def together(
        self, conversations: list[Any], tokens: int, texts: list[str] | None = None, **more: Any
    ) -> list[Stream]:
        return self._daemon.chat(
            self._model,
            conversations,
            texts,
            **{"max_tokens": tokens, "ignore_eos": True, **SAMPLING, **more},
        )


class _TheirChats:
    def __init__(self, their: llama_cpp.Server) -> None:
        self._server = their

    def together(
        self, conversations: list[Any], tokens: int, texts: list[str] | None = None, **more: Any
    ) -> list[Stream]:
        made: list[Stream] = []

        async def one(messages: Any) -> None:
            body = {"messages": messages, "max_tokens": tokens, "ignore_eos": True}
            made.append(await self._server.chat({**body, **SAMPLING, **more}, texts))

        async def all_of_them() -> None:
            async with trio.open_nursery() as nursery:
                for messages in conversations:
                    nursery.start_soon(one, messages)

        trio.run(all_of_them)
        return sorted(made, key=lambda stream: stream.began)


# ---------------------------------------------------------------- cpu


def cpu(arguments: argparse.Namespace) -> None:
    """See the module."""
    path, prompts, tokens = model_path(arguments.model), Prompts(), 4 * GENERATED
    for streams in arguments.streams:
        load_options = options(arguments, streams, CONTEXT)
        daemon = Daemon(path.parent)
        costs = []
        try:
            model = daemon.load(path, **load_options)
            for _ in range(arguments.rounds):
                texts = [prompts.text(8) for _ in range(streams)]
                before = processor_s(daemon.process.pid)
                made = daemon.generate(model, texts, tokens)
                spent = processor_s(daemon.process.pid) - before
                costs.append(spent * 1e3 / sum(n for s in made for _, n in s.arrivals))
        finally:
            daemon.close()
        print(f"processor time a token, {streams} streams, {path.stem}, {arguments.rounds} runs of")
        print(f"{tokens} tokens a stream, load {os.getloadavg()[0]:.1f}")
        print(f"  daemon                       {_spread(costs)} ms", flush=True)
        worker = WorkerProcess(path, **load_options)
        try:
            runs = [
                worker.beside_decode_ms([prompts.text(8) for _ in range(streams)], tokens)
                for _ in range(arguments.rounds)
            ]
        except RuntimeError as exc:
            print(f"  worker                       not measured: {exc}")
            continue
        finally:
            worker.close()
        print(f"  worker beside llama_decode   {_spread([run['beside'] for run in runs])} ms")
        print(f"  worker inside llama_decode   {_spread([run['inside'] for run in runs])} ms")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


# ---------------------------------------------------------------- switch


def switch(arguments: argparse.Namespace) -> None:
    """See the module."""
    prompts = Prompts()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = [directory / model_path(size).name for size in SHAPES]
        for path in paths:
            path.symlink_to(model_path(path.name.split("-")[1]))
            path.read_bytes()  # into the page cache
        daemon = Daemon(directory, HYBRIDD_LIMITS_MAX_LOADED="1")
        their = llama_cpp.Server(
            *("--models-dir", name, "--models-max", "1", "-c", "4096", "-np", "1"),
            *("-t", str(arguments.threads), *arguments.server_options),
        )
        try:
            load_options = options(arguments, 1, 4096)
            ids = [daemon.load(path, **load_options) for path in paths]

            def ours(at: int) -> float:
                messages = [prompts.conversation(8)]
                chats = _OurChats(daemon, ids[at])
                made = chats.together(messages, 1, ignore_eos=False, load_options=load_options)
                return first_token_s(made) * 1e3

            def theirs(at: int) -> float:
                messages = [prompts.conversation(8)]
                made = _TheirChats(their).together(
                    messages, 1, ignore_eos=False, model=paths[at].stem
                )
                return first_token_s(made) * 1e3

            def both_ways(once: Callable[[int], float]) -> Figures:
                return {f"to {path.stem}": _calm(once, at) for at, path in enumerate(paths)}

            both_ways(ours), both_ways(theirs)
            pairs(
                f"switch, first token, {arguments.threads} threads, against llama-server's router",
                {f"to {path.stem}": "ms" for path in paths},
                lambda: both_ways(ours),
                lambda: both_ways(theirs),
                arguments.rounds,
            )
        finally:
            their.close()
            daemon.close()


def _calm(once: Callable[[int], float], at: int) -> float:
    """One switch, after the one before has been idle for a moment, as with a person."""
    time.sleep(0.3)
    return once(at)


PARTS = {"speed": speed, "socket": socket, "server": server, "cpu": cpu, "switch": switch}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="+", choices=PARTS)
    parser.add_argument("--model", choices=SHAPES, default="0.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--server-options", type=shlex.split, default=[], help="more of llama-server's, in one text"
    )
    arguments = parser.parse_args()
    # Told to end, it ends what it started as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for part in arguments.part:
        PARTS[part](arguments)


if __name__ == "__main__":
    main()
