"""Speed and start-up of the Hugging Face engine beside transformers' own ways of serving.

    python -m tests.bench.huggingface [stream eight batching adapters serve cold start memory]
        [--rounds 5] [--tokens 64] [--threads N] [--serve-python PYTHON] [--directory DIR]

stream    one stream through the socket / `model.generate`
eight     eight streams through the socket, all together / `generate` with a batch of eight
batching  eight prompts by transformers' `generate_batch` / by our engine, both in this process
adapters  eight requests of a model with an adapter at once / one after the other, in this process
serve     eight chats at once / `transformers serve`, with and without continuous batching
cold      from nothing running to the first token; the same from a warm daemon, and from one that
          was started 10 s ago and asked for nothing since
start     `models.load` to ready, the packaged demo model, template warm
memory    private memory of a second worker beyond its weights

All on one random-weight Qwen2 of 0.1 B in bfloat16, made once into DIR, with the same number of
threads. What is compared is measured in turns in one run; each line is the median of the pairs'
ratios. `serve` and `cold` need an interpreter with fastapi, uvicorn, openai, pydantic and
accelerate too.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridd.backends.cpu import usable_cores
from tests.bench.serving import Hybridd, Server, TransformersServe, tokens_per_second

STREAMS = 8
PROMPT_TOKENS = 64
DTYPE = "bfloat16"
IDLE_S = 10.0
DEMO = "hybridd/demo-hf"
SHAPE: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 768,
    "intermediate_size": 2560,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "dtype": DTYPE,
}


def model_path(directory: Path) -> Path:
    """The model; made if it is missing."""
    path = directory / "bench" / "qwen2-0.1b"
    if not (path / "model.safetensors").exists():
        from tests.make_transformers import make

        path.mkdir(parents=True, exist_ok=True)
        make("qwen2", path, **SHAPE)
    return path


def prompt() -> str:
    """A text of about `PROMPT_TOKENS` tokens that shares no beginning with another one."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    # Two letters are a token or two of the demo model's tokenizer.
    return " ".join("".join(random.choices(letters, k=2)) for _ in range(PROMPT_TOKENS // 2))


def pairs(
    name: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int, unit: str
) -> None:
    """Measure both in turns, the first of each for nothing, and print the median ratio."""
    ours(), theirs()
    made = [(ours(), theirs()) for _ in range(rounds)]
    ratios = [one / other for one, other in made]
    mine, other = (statistics.median(values) for values in zip(*made, strict=True))
    print(
        f"{name:34} {statistics.median(ratios):6.2f}   ours {mine:.2f} {unit}, theirs "
        f"{other:.2f} {unit}; ratios {min(ratios):.2f} to {max(ratios):.2f}; "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


class Plain:
    """The model under `generate` in this process."""

    def __init__(self, path: Path, threads: int) -> None:
        import torch
        import transformers

        self._torch: Any = torch
        torch.set_num_threads(threads)
        untyped: Any = transformers
        self.model = untyped.AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.bfloat16)
        self.model.eval()
        self.model.generation_config.pad_token_id = 0

    def tokens_per_second(self, rows: int, count: int) -> float:
        ids = self._torch.randint(10, 1000, (rows, PROMPT_TOKENS))
        began = time.perf_counter()
        self.model.generate(
            ids,
            attention_mask=self._torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
        )
        return rows * count / (time.perf_counter() - began)


class Arguments(argparse.Namespace):
    """What the command line said."""

    parts: list[str]
    rounds: int
    tokens: int
    threads: int
    serve_python: str
    directory: Path


def load_options(a: Arguments, parallel: int = STREAMS) -> dict[str, Any]:
    return {"dtype": DTYPE, "threads": a.threads, "parallel": parallel, "context_length": 2048}


class _Streams:
    """`Hybridd` asked by `generate`."""

    def __init__(self, server: Hybridd) -> None:
        self._server = server

    def chat(self, text: str, max_tokens: int) -> int:
        return self._server.generate(text, max_tokens)

    def close(self) -> None:
        self._server.close()


def streams(a: Arguments, count: int, name: str) -> None:
    path = model_path(a.directory)
    plain = Plain(path, a.threads)
    server = _Streams(Hybridd(path, load_options(a)))
    try:
        pairs(
            name,
            lambda: tokens_per_second(server, [prompt() for _ in range(count)], a.tokens),
            lambda: plain.tokens_per_second(count, a.tokens),
            a.rounds,
            "tokens/s",
        )
    finally:
        server.close()


def part_stream(a: Arguments) -> None:
    streams(a, 1, "one stream / generate")


def part_eight(a: Arguments) -> None:
    streams(a, STREAMS, "eight streams / generate of eight")


class _Engine:
    """The model in our engine, in this process; `adapters` are names and directories."""

    def __init__(self, a: Arguments, adapters: Mapping[str, Path] | None = None) -> None:
        from hybridd.backends.huggingface.engine.generator import HuggingFaceEngine
        from tests.support_models import ignore_progress, spec_for

        spec = spec_for(model_path(a.directory), "huggingface", **load_options(a))
        placed = [{"name": name, "path": str(path)} for name, path in (adapters or {}).items()]
        spec["adapters"] = placed
        self._engine = HuggingFaceEngine()
        self._engine.load(spec, ignore_progress)
        self._count = a.tokens

    def tokens_per_second(self, choices: Sequence[Sequence[str]], *, together: bool) -> float:
        """A request with each of these adapters, all at once or one after the other."""
        began, made = time.perf_counter(), 0
        for number, chosen in enumerate(choices):
            options = {"temperature": 0, "max_tokens": self._count, "ignore_eos": True}
            options["adapters"] = [{"name": name} for name in chosen]
            self._engine.submit(
                {"id": number, "kind": "generate", "prompt": prompt(), "options": options}
            )
            if not together:
                made += self._run()
        return (made + self._run()) / (time.perf_counter() - began)

    def _run(self) -> int:
        made = 0
        while self._engine.busy:
            for output in self._engine.step():
                assert "error" not in output, output["error"]
                made += output["delta"].tokens if "delta" in output else 0
        return made


def part_adapters(a: Arguments) -> None:
    path = a.directory / "bench" / "qwen2-0.1b-adapter"
    if not (path / "adapter_model.safetensors").exists():
        import peft

        untyped: Any = peft
        config = untyped.LoraConfig(
            r=8, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
        )
        model = Plain(model_path(a.directory), a.threads).model
        untyped.get_peft_model(model, config).save_pretrained(path)
    engine = _Engine(a, {"one": path})
    for name, choices in (
        ("no adapter", [[]] * STREAMS),
        ("one adapter", [["one"]] * STREAMS),
        ("every second one", [[], ["one"]] * (STREAMS // 2)),
    ):
        pairs(
            f"{name}, at once / in turns",
            lambda: engine.tokens_per_second(choices, together=True),  # noqa: B023 - in this turn
            lambda: engine.tokens_per_second(choices, together=False),  # noqa: B023
            a.rounds,
            "tokens/s",
        )


def part_batching(a: Arguments) -> None:
    import torch

    plain = Plain(model_path(a.directory), a.threads)
    engine = _Engine(a)

    def ours() -> float:
        return engine.tokens_per_second([[]] * STREAMS, together=True)

    def theirs() -> float:
        from transformers import GenerationConfig

        config = GenerationConfig(
            max_new_tokens=a.tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        inputs = torch.randint(10, 1000, (STREAMS, PROMPT_TOKENS)).tolist()
        began = time.perf_counter()
        outputs = plain.model.generate_batch(inputs, generation_config=config)
        made = sum(len(output.generated_tokens) for output in outputs.values())
        return made / (time.perf_counter() - began)

    pairs("engine / generate_batch", ours, theirs, a.rounds, "tokens/s")


def part_serve(a: Arguments) -> None:
    path = model_path(a.directory)

    def chats(server: Server) -> Callable[[], float]:
        return lambda: tokens_per_second(server, [prompt() for _ in range(STREAMS)], a.tokens)

    for batching in (False, True):
        ours = Hybridd(path, load_options(a))
        try:
            theirs = TransformersServe(a.serve_python, path, DTYPE, a.threads, batching)
            name = f"eight chats / serve{' --continuous-batching' if batching else ''}"
            try:
                pairs(name, chats(ours), chats(theirs), a.rounds, "tokens/s")
            finally:
                theirs.close()
        finally:
            ours.close()


def part_cold(a: Arguments) -> None:
    path = model_path(a.directory)

    def seconds(make: Callable[[], Server]) -> float:
        began = time.perf_counter()
        server = make()
        try:
            server.chat(prompt(), 1)
            return time.perf_counter() - began
        finally:
            server.close()

    warm = Hybridd(path, load_options(a))

    def from_warm() -> float:
        warm.warm()
        began = time.perf_counter()
        warm.chat(prompt(), 1)
        return time.perf_counter() - began

    def serve() -> Server:
        return TransformersServe(a.serve_python, path, DTYPE, a.threads, False)

    try:
        pairs("warm daemon / serve cold", from_warm, lambda: seconds(serve), a.rounds, "s")
    finally:
        warm.close()

    def from_idle() -> float:
        idle = Hybridd(path, load_options(a))
        try:
            time.sleep(IDLE_S)
            began = time.perf_counter()
            idle.chat(prompt(), 1)
            return time.perf_counter() - began
        finally:
            idle.close()

    pairs("up for 10 s / serve cold", from_idle, lambda: seconds(serve), a.rounds, "s")
    pairs(
        "cold daemon / serve cold",
        lambda: seconds(lambda: Hybridd(path, load_options(a))),
        lambda: seconds(serve),
        a.rounds,
        "s",
    )


def part_start(a: Arguments) -> None:
    server = Hybridd(model_path(a.directory), {})
    try:
        server.warm()
        whole, inside = [], []
        with server.client() as client:
            for _ in range(max(a.rounds, 7)):
                began = time.perf_counter()
                loaded = client.load(DEMO)
                whole.append(time.perf_counter() - began)
                inside.append(loaded.load_s)
                client.unload("*")
        print(
            f"{'models.load to ready, demo model':34} {statistics.median(whole):6.3f} s, "
            f"{min(whole):.3f} to {max(whole):.3f}; load_s {statistics.median(inside):.3f}; "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    finally:
        server.close()


def part_memory(a: Arguments) -> None:
    server = Hybridd(model_path(a.directory), load_options(a))
    try:
        with server.client() as client:
            client.generate(DEMO, "To load", max_tokens=8)
            server.generate(prompt(), 8)
            for loaded in client.loaded():
                private, mapped = private_kib(loaded.pid)
                print(
                    f"{'worker of ' + loaded.id:34} {private / 1024:6.1f} MiB private, "
                    f"{mapped / 1024:.1f} MiB of mapped weights",
                    flush=True,
                )
    finally:
        server.close()


def private_kib(pid: int) -> tuple[int, int]:
    """A process's private pages: all but the weights that it maps, and those."""
    counts = [0, 0]
    of_weights = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in ("Private_Clean", "Private_Dirty"):
            counts[of_weights] += int(rest.split()[0])
        elif "-" in key.split(" ")[0]:
            of_weights = line.endswith(".safetensors")
    return counts[0], counts[1]


PARTS: dict[str, Callable[[Arguments], None]] = {
    name.removeprefix("part_"): value
    for name, value in list(globals().items())
    if name.startswith("part_")
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--serve-python", default=sys.executable)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--directory", type=Path, default=cache / "hybridd-bench-hf")
    a = parser.parse_args(namespace=Arguments())
    for name in a.parts:
        PARTS[name](a)


if __name__ == "__main__":
    main()
