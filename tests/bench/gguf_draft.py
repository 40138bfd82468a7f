"""What a draft model brings, and what it costs where it brings nothing.

    python -m tests.bench.gguf_draft [--rounds 5] [--threads 2] [--streams 1 4] [--tokens 200]
                                   [--layers 120]

Generated tokens a second with a draft model over those without, greedy, both engines in this
process and in turns. Nothing is asserted.

refused    0.5 B of random weights with 0.1 B of random weights: hardly a token is right.
itself     The demo model drafts for itself: nearly all are right, and a draft costs what it saves.
idle       The demo model with layers more that add nothing, in Q8_0: it says what the demo model
           says and takes many times as long. The demo model drafts for it, and nearly all are
           right: what a draft model that is never wrong can bring on this machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np  # noqa: TID253 - gguf, which this needs, imports it anyway

from hybridd.backends.gguf.engine.generator import GGUFEngine
from tests.bench.gguf_measure import Figures, pairs
from tests.bench.gguf_models import model_path
from tests.support_gguf import forget
from tests.support_models import DEMO_GGUF, delta_of, ignore_progress, spec_for

QUESTIONS = (
    "What is the capital of France?",
    "How many legs does a spider have?",
    "What do bees make?",
    "What is the largest ocean?",
)
CONTEXT = 512


def with_idle_layers(path: Path, layers: int) -> Path:
    """Write the demo model with so many layers more, whose outputs are all zero."""
    reader = gguf.GGUFReader(DEMO_GGUF)
    fields = reader.fields
    architecture = str(fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(path, architecture)
    own = int(fields[f"{architecture}.block_count"].contents())
    for name, field in fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = own + layers if name.endswith(".block_count") else field.contents()
        sub_type = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], sub_type)

    def add(name: str, values: Any) -> None:
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
            return
        kind = gguf.GGMLQuantizationType.Q8_0
        packed = gguf.quants.quantize(values.astype(np.float32), kind)
        writer.add_tensor(name, packed, raw_dtype=kind)

    for tensor in reader.tensors:
        add(tensor.name, tensor.data)
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.0."):
            part = tensor.name.removeprefix("blk.0.")
            silent = part.startswith(("attn_output", "ffn_down"))
            for number in range(own, own + layers):
                values = np.zeros_like(tensor.data) if silent else tensor.data
                add(f"blk.{number}.{part}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def loaded(path: Path, draft: Path | None, streams: int, threads: int) -> GGUFEngine:
    """An engine with or without a draft model."""
    options = {"context_length": CONTEXT, "parallel": streams, "threads": threads}
    spec = spec_for(path, "gguf", **options)
    if draft is not None:
        spec["load_options"]["draft_model"] = draft.stem
        spec["draft"] = {"model": draft.stem, "path": str(draft)}
    engine = GGUFEngine()
    engine.load(spec, ignore_progress)
    return engine


class Side:
    """One engine; adds up what came of its drafts."""

    def __init__(self, engine: GGUFEngine, streams: int, tokens: int) -> None:
        self.engine, self.streams, self.tokens_each = engine, streams, tokens
        self.tokens = self.drafted = self.accepted = 0

    def run(self) -> Figures:
        """Generate once, for all streams at a time."""
        forget(self.engine)
        wanted = {"temperature": 0, "max_tokens": self.tokens_each, "ignore_eos": True}
        for key in range(self.streams):
            messages = [{"role": "user", "content": QUESTIONS[key % len(QUESTIONS)]}]
            self.engine.submit({"id": key, "kind": "chat", "messages": messages, "options": wanted})
        tokens, began = 0, time.perf_counter()
        while self.engine.busy:
            for output in self.engine.step():
                tokens += delta_of(output).tokens
                timings = output.get("done", {}).get("timings", {})
                self.drafted += timings.get("draft_tokens", 0)
                self.accepted += timings.get("draft_accepted_tokens", 0)
        self.tokens += tokens
        return {"generated": tokens / (time.perf_counter() - began)}


def compare(name: str, path: Path, draft: Path, arguments: argparse.Namespace) -> None:
    """Print one line for each number of streams."""
    for streams in arguments.streams:
        sides = [
            Side(loaded(path, which, streams, arguments.threads), streams, arguments.tokens)
            for which in (draft, None)
        ]
        for side in sides:
            side.run()  # warm up
            side.tokens = side.drafted = side.accepted = 0
        ours, theirs = sides
        title = (
            f"{name}: {path.stem} with {draft.stem}, {streams} streams, {arguments.threads} threads"
        )
        pairs(title, {"generated": "t/s"}, ours.run, theirs.run, arguments.rounds)
        print(
            f"  of {ours.tokens} tokens {ours.accepted} were drafted, out of {ours.drafted} drafted"
        )
        for side in sides:
            side.engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=200, help="generated for each request")
    parser.add_argument("--layers", type=int, default=120)
    arguments = parser.parse_args()
    compare("refused", model_path("0.5b"), model_path("0.1b"), arguments)
    compare("itself", DEMO_GGUF, DEMO_GGUF, arguments)
    with tempfile.TemporaryDirectory() as directory:
        idle = with_idle_layers(Path(directory) / "demo-idle-Q8_0.gguf", arguments.layers)
        compare("idle", idle, DEMO_GGUF, arguments)


if __name__ == "__main__":
    main()
