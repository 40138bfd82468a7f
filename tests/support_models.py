"""Real engines on the demo models, driven without a worker."""

from __future__ import annotations

import atexit
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hybridd.backends.api import Delta, Engine, KVSpec, LoadedFacts, LoadSpec, Output
from hybridd.backends.registry import load_backends

DEMO = Path(__file__).parent.parent / "hybridd" / "demo"
DEMO_GGUF = DEMO / "demo-gguf" / "hybridd-demo-F16.gguf"
DEMO_HUGGINGFACE = DEMO / "demo-hf"


@atexit.register
def _close_what_llama_cpp_leaves_open() -> None:
    """Its high-level half opens /dev/null twice at import; a warning of that is nobody's."""
    utils = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if (file := getattr(utils, name, None)) is not None:
            file.close()


class Answer(NamedTuple):
    """What a request brought: `result` is its `done`, `error` its wire error."""

    text: str
    deltas: list[str]
    tokens: int
    logprobs: list[dict[str, Any]]
    result: dict[str, Any]
    error: dict[str, Any]


def spec_for(path: Path, format_name: str, **load_options: Any) -> LoadSpec:
    """What the daemon would have a worker load."""
    return LoadSpec(
        model="demo",
        format=format_name,
        path=str(path),
        load_options=load_options,
        defaults={},
        identity=str(path),
        kv=KVSpec(host_cache_bytes=0, persist_bytes=0, persist_dir=""),
    )


def ignore_progress(_stage: str, _done: int, _total: int) -> None:
    """A `report` that nobody looks at."""


def make_engine(format_name: str) -> Engine:
    """A fresh engine; skips where its library is missing."""
    if format_name == "gguf":
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    if format_name == "huggingface":
        pytest.importorskip("torch", reason="torch is not installed")
        pytest.importorskip("transformers", reason="transformers is not installed")
    module_name, _, name = load_backends()[format_name].engine_factory.partition(":")
    engine: Engine = getattr(importlib.import_module(module_name), name)()
    return engine


def loaded_demo(format_name: str, **load_options: Any) -> tuple[Engine, LoadedFacts]:
    """The demo model of a format in its engine."""
    path = DEMO_GGUF if format_name == "gguf" else DEMO_HUGGINGFACE
    engine = make_engine(format_name)
    facts = engine.load(spec_for(path, format_name, **load_options), ignore_progress)
    return engine, facts


def ask(engine: Engine, kind: str = "generate", **request: Any) -> Answer:
    """Run one request to its end."""
    made: Any = {"id": 1, "kind": kind, **request}
    engine.submit(made)
    return collect(engine, 1)


def collect(
    engine: Engine, request_id: int, each: Callable[[int], None] = lambda _steps: None
) -> Answer:
    """Step until the engine has nothing to do; `each` is called with the number of steps."""
    deltas: list[str] = []
    tokens = steps = 0
    logprobs: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    while engine.busy:
        for output in engine.step():
            if output["id"] != request_id:
                continue
            assert not ends, "an output after the end"
            assert not errors, "an output after the end"
            deltas.append(delta_of(output).text)
            tokens += delta_of(output).tokens
            logprobs += delta_of(output).logprobs or []
            ends += [output["done"]] if "done" in output else []
            errors += [output["error"]] if "error" in output else []
        steps += 1
        each(steps)
    return Answer(
        "".join(deltas),
        deltas,
        tokens,
        logprobs,
        ends[0] if ends else {},
        errors[0] if errors else {},
    )


def delta_of(output: Output) -> Delta:
    """What an output brings, nothing where it only ends a request."""
    return output.get("delta", Delta())


def user(content: str) -> list[dict[str, Any]]:
    """A conversation of one message."""
    return [{"role": "user", "content": content}]
