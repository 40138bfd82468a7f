"""What the demo model is for: the held-out questions, through both engines and the socket."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from .conftest import RealDaemon

HELD_OUT = tomllib.loads(
    (Path(__file__).parents[2] / "etc" / "demo-model" / "held_out.toml").read_text()
)
LOADING = next(t["questions"] for t in HELD_OUT["topic"] if t["name"] == "load")


@pytest.mark.parametrize("question", LOADING)
def test_how_to_load_a_model(shared_daemon: RealDaemon, question: str) -> None:
    """Wordings it was never trained on: the command is in the answer, the same in both formats."""
    messages = [{"role": "user", "content": question}]
    with shared_daemon.client() as client:
        answers = {
            model: client.chat(model, messages, temperature=0).text
            for model in ("hybridd/demo-gguf", "hybridd/demo-hf")
        }
    assert len(LOADING) >= 10
    assert "hybridctl load" in answers["hybridd/demo-gguf"]
    assert answers["hybridd/demo-gguf"] == answers["hybridd/demo-hf"]
