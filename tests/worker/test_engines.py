"""Every frame that a daemon sends, to a worker with a real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridd.backends import gguf, huggingface
from tests.support_models import DEMO_GGUF, DEMO_HUGGINGFACE, spec_for
from tests.worker.support import worker

OPTIONS = {"temperature": 0, "max_tokens": 5, "ignore_eos": True}


@pytest.mark.parametrize(
    ("backend", "path", "library"),
    [
        (gguf.BACKEND, DEMO_GGUF, "llama_cpp"),
        (huggingface.BACKEND, DEMO_HUGGINGFACE, "transformers"),
    ],
    ids=["gguf", "huggingface"],
)
def test_from_load_to_stop(backend: object, path: Path, library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    assert isinstance(backend, type(gguf.BACKEND) | type(huggingface.BACKEND))
    with worker() as w:
        spec = spec_for(path, backend.name, parallel=2)
        w.send("load", spec=spec, factory=backend.engine_factory)
        assert w.until("ready", "failed")["op"] == "ready"
        w.start(1, prompt="Who are you?", options=OPTIONS)
        w.until("deltas")
        w.send("threads", n=1)  # another model has begun to work
        assert w.until("done")["result"]["usage"]["completion_tokens"] == 5
        w.start(2, prompt="Who are you?", options={**OPTIONS, "max_tokens": 200})
        w.until("deltas")
        w.send("cancel", id=2)
        assert w.until("cancelled", "done")["op"] == "cancelled"
        w.send("threads", n=2)
        w.send("stats")
        assert w.until("stats")["active"] == 0
        w.send("ping", n=7)
        assert w.until("pong")["n"] == 7
        w.send("stop")
        assert w.wait() == 0, w.log()
