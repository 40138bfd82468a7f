"""What llama.cpp's settings give a plain Python loop over `llama_decode`.

    python -m tests.bench.gguf_decode [--model 0.5b] [--rounds 5] [--streams 8] [--threads 2]
                                       [--prompt 100] [SETTING…]

Compares, for a prompt of 100 random tokens a stream (--prompt) and 32 generated ones without
sampling, tokens per second under each setting with those of `llama-batched-bench` (in the folder
LLAMA_CPP_BIN) run right beside it with llama.cpp's defaults, or, where that program is missing,
with the first setting. One process per measurement, settings taking turns. Ratios are medians over
the rounds. Two threads on two cores that somebody else uses too mostly wait for each other. With
--threads 1 the processor time of a token, which is printed behind, is steady even then.

A setting is `name=value` pairs joined by commas: unified (0, 1), flash (on, off, auto), threads,
ubatch, batch, active (of the streams, how many go on), spread (1: they leave holes between them),
poll (0–100: an explicit ggml thread pool), GOMP_SPINCOUNT, OMP_WAIT_POLICY (environment).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.gguf_models import SHAPES, VOCABULARY, model_path

GENERATED = 32
FLASH = {"auto": -1, "off": 0, "on": 1}
DEFAULTS: dict[str, str] = {
    "unified": "0",
    "flash": "auto",
    "ubatch": "512",
    "batch": "2048",
    "spread": "0",
}
SETTINGS = (
    "unified=0",
    "unified=1",
    "unified=0,flash=on",
    "unified=0,flash=off",
    "unified=1,flash=off",
    "unified=0,ubatch=128",
    "unified=0,ubatch=256",
    "unified=0,poll=100",
    "unified=0,OMP_WAIT_POLICY=active",
)


class PoolParameters(ctypes.Structure):
    """`struct ggml_threadpool_params`."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


def attach_pool(llama: Any, context: Any, threads: int, poll: int) -> None:
    """Give a context a ggml thread pool of its own; the binding has no names for this."""
    folder = Path(llama.__file__).parent / "lib"
    cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"))
    base = ctypes.CDLL(str(folder / "libggml-base.so"))
    library = ctypes.CDLL(str(folder / "libllama.so"))
    params = PoolParameters()
    base.ggml_threadpool_params_init(ctypes.byref(params), threads)
    params.poll = poll
    cpu.ggml_threadpool_new.restype = ctypes.c_void_p
    pool = cpu.ggml_threadpool_new(ctypes.byref(params))
    library.llama_attach_threadpool(
        ctypes.c_void_p(context), ctypes.c_void_p(pool), ctypes.c_void_p(pool)
    )


def context_for(streams: int, prompt: int) -> int:
    """Room for all streams, in the steps that llama.cpp counts cells in."""
    return streams * -(-(prompt + 2 * GENERATED) // 256) * 256


def loop(path: Path, streams: int, setting: dict[str, str]) -> dict[str, float]:
    """Measure one setting in this process; tokens per second of prompts and of generation."""
    from llama_cpp import llama_cpp as llama

    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    prompt = int(setting["prompt"])
    params.n_ctx = context_for(streams, prompt)
    params.n_batch, params.n_ubatch = int(setting["batch"]), int(setting["ubatch"])
    params.n_seq_max = streams
    params.n_threads = params.n_threads_batch = int(setting["threads"])
    params.kv_unified = setting["unified"] == "1"
    params.flash_attn_type = FLASH[setting["flash"]]
    context = llama.llama_init_from_model(model, params)
    assert context
    if "poll" in setting:
        attach_pool(llama, context, params.n_threads, int(setting["poll"]))
    active = list(range(streams))[: int(setting.get("active", streams))]
    if setting["spread"] == "1":
        active = list(range(0, streams, 2))
    chance = random.Random(1)
    memory = llama.llama_get_memory(context)
    batch = llama.llama_batch_init(params.n_batch, 0, 1)

    def decode(entries: list[tuple[int, int, bool]]) -> None:
        for start in range(0, len(entries), params.n_batch):
            part = entries[start : start + params.n_batch]
            batch.n_tokens = len(part)
            for at, (sequence, position, wanted) in enumerate(part):
                batch.token[at], batch.pos[at] = chance.randrange(VOCABULARY - 3), position
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
                batch.logits[at] = wanted
            assert llama.llama_decode(context, batch) == 0
            llama.llama_synchronize(context)

    decode([(0, position, position == 15) for position in range(16)])  # warm up
    llama.llama_memory_clear(memory, False)
    prompts = [(s, p, p == prompt - 1) for s in range(streams) for p in range(prompt)]
    began, began_cpu = time.perf_counter(), time.process_time()
    decode(prompts)
    prompted, prompted_cpu = time.perf_counter(), time.process_time()
    for step in range(GENERATED):
        decode([(sequence, prompt + step, True) for sequence in active])
    ended, ended_cpu = time.perf_counter(), time.process_time()
    count = len(active) * GENERATED
    return {
        "prompt": len(prompts) / (prompted - began),
        "generated": count / (ended - prompted),
        "prompt_cpu_ms": (prompted_cpu - began_cpu) * 1e3 / len(prompts),
        "generated_cpu_ms": (ended_cpu - prompted_cpu) * 1e3 / count,
    }


def in_process(path: Path, streams: int, setting: dict[str, str]) -> dict[str, float]:
    """The same in a process of its own, which environment variables need."""
    environment = {k: v for k, v in setting.items() if k.isupper()}
    command = [sys.executable, "-m", __spec__.name, "--one", json.dumps(setting)]
    command += ["--path", str(path), "--streams", str(streams)]
    made = subprocess.run(
        command, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return found


def batched_bench(
    program: Path, path: Path, streams: int, shared: dict[str, str]
) -> dict[str, float]:
    """`llama-batched-bench` with the same work."""
    context, threads = context_for(streams, int(shared["prompt"])), shared["threads"]
    command = [str(program), "-m", str(path), "-c", str(context), "-b", "2048", "-ub", "512"]
    command += ["-npp", shared["prompt"], "-ntg", str(GENERATED), "-npl", str(streams)]
    command += ["-t", threads, "--output-format", "jsonl"]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    line = next(text for text in made.stdout.splitlines() if text.startswith("{"))
    found = json.loads(line)
    return {"prompt": found["speed_pp"], "generated": found["speed_tg"]}


def parsed(text: str, shared: dict[str, str]) -> dict[str, str]:
    """A setting's pairs over what all of them share (threads, prompt) and the defaults."""
    return {**DEFAULTS, **shared, **dict(pair.split("=", 1) for pair in text.split(","))}


def compare(
    path: Path, streams: int, settings: list[str], rounds: int, shared: dict[str, str]
) -> None:
    """Print a line for each setting."""
    folder = os.environ.get("LLAMA_CPP_BIN")
    program = Path(folder) / "llama-batched-bench" if folder else None
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    ratios: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for number in range(rounds):
        for name in settings if number % 2 == 0 else reversed(settings):
            made = in_process(path, streams, parsed(name, shared))
            if program is not None and program.exists():
                other = batched_bench(program, path, streams, shared)
            else:
                other = in_process(path, streams, parsed(settings[0], shared))
            runs[name].append(made)
            ratios[name].append({key: made[key] / other[key] for key in made if key in other})
    load = os.getloadavg()[0]
    reference = "llama-batched-bench" if program is not None else settings[0]
    print(
        f"{path.name}, {streams} streams of {shared['prompt']} tokens, "
        f"{shared['threads']} threads, against {reference}, "
        f"{rounds} pairs, load {load:.1f}"
    )
    for name in settings:
        tokens, ratio = (
            {key: statistics.median(run[key] for run in found) for key in found[0]}
            for found in (runs[name], ratios[name])
        )
        print(
            f"  {name:34} generated {tokens['generated']:7.1f}/s {ratio['generated']:.3f}   "
            f"prompt {tokens['prompt']:7.1f}/s {ratio['prompt']:.3f}   "
            f"cpu {tokens['generated_cpu_ms']:.2f}, {tokens['prompt_cpu_ms']:.2f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--model", choices=SHAPES, default="0.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--threads", default=str(os.cpu_count()))
    parser.add_argument("--prompt", default="100")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(loop(arguments.path, arguments.streams, json.loads(arguments.one))))
        return
    compare(
        model_path(arguments.model),
        arguments.streams,
        arguments.settings,
        arguments.rounds,
        {"threads": arguments.threads, "prompt": arguments.prompt},
    )


if __name__ == "__main__":
    main()
