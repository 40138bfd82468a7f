"""Other programs' models, found by a running daemon, also where nothing was when it started."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import RealDaemon, Wire
from tests.make_models import llama_metadata, write_gguf, write_hf
from tests.make_stores import hub_snapshot, ollama_model

DEMO = Path(__file__).parents[2] / "hybridd/demo/demo-gguf/hybridd-demo-F16.gguf"
EXPECTED = {
    "lmstudio": "lmstudio-community/Some-7B-GGUF:Q4_K_M",
    "hub": "org/Other-7B",
    "llamacpp": "plain:Q4_K_M",
    "ollama": "demo:f16",
}


def fill(home: Path) -> None:
    """Write one model into each store of a home directory."""
    some = llama_metadata(general__name="some")
    write_gguf(home / ".lmstudio/models/lmstudio-community/Some-7B-GGUF/some.Q4_K_M.gguf", some)
    write_gguf(home / "cache/llama.cpp/plain.gguf")
    hub_snapshot(home / "cache/huggingface/hub", "org/Other-7B", write_hf(home / "tmp"), "a" * 40)
    ollama_model(home / ".ollama/models", "demo:f16", weights=DEMO)


def test_stores_that_come_while_the_daemon_runs(daemon: RealDaemon) -> None:
    with Wire(daemon.socket) as wire:
        wire.call("events.subscribe", topics=["models"])
        wire.call("models.rescan")
        fill(daemon.directory)
        missing = set(EXPECTED.values())
        while missing:
            message = wire.receive()
            if message["method"] == "$/event" and message["params"]["type"] == "added":
                missing.discard(message["params"]["id"])
        listed = wire.call("models.list")["result"]["models"]
    found = {model["source"]["store"]: model["id"] for model in listed}
    assert {store: id for store, id in found.items() if store != "demo"} == EXPECTED


def test_a_store_is_turned_off_and_on(daemon: RealDaemon) -> None:
    fill(daemon.directory)
    with Wire(daemon.socket) as wire:
        for off in EXPECTED:
            wire.call("config.set", values={f"catalog.{off}": False})
            wire.call("models.rescan")
            listed = wire.call("models.list")["result"]["models"]
            stores = {model["source"]["store"] for model in listed} - {"demo"}
            assert stores == set(EXPECTED) - {off}
            wire.call("config.unset", keys=[f"catalog.{off}"])


def test_a_model_of_ollama_answers(daemon: RealDaemon) -> None:
    pytest.importorskip("llama_cpp", reason="needs the extra gguf")
    fill(daemon.directory)
    shutil.rmtree(daemon.directory / ".lmstudio")
    question = [{"role": "user", "content": "What is a GGUF file?"}]
    with daemon.client() as client:
        client.rescan()
        mine = client.chat("demo:f16", question, temperature=0).text
        assert mine == client.chat("hybridd/demo-gguf", question, temperature=0).text
