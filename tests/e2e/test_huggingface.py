"""Hugging Face models through a real daemon: pictures, and loads that come to nothing."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import select
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridd.wire.errors import InvalidParams, Unsupported

from .conftest import NET_S, RealDaemon, Wire

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
DEMO = Path(__file__).parents[2] / "hybridd" / "demo" / "demo-hf"


def test_a_conversation_with_a_picture(daemon: RealDaemon) -> None:
    images = pytest.importorskip("PIL.Image", reason="the extra vision is not installed")
    tiny = pytest.importorskip("tests.make_huggingface")
    tiny.llava(daemon.models / "seeing")
    file = io.BytesIO()
    images.new("RGB", (40, 30), "teal").save(file, format="PNG")
    encoded = base64.b64encode(file.getvalue()).decode()

    def messages(url: str) -> list[dict[str, Any]]:
        picture = {"type": "image_url", "image_url": {"url": url}}
        return [{"role": "user", "content": [picture, {"type": "text", "text": "what is it"}]}]

    options = {"temperature": 0, "max_tokens": 5, "ignore_eos": True}
    with daemon.client() as client, Wire(daemon.socket) as wire:
        client.rescan()
        assert "vision" in client.show("seeing").capabilities

        def chat(model: str, url: str) -> Any:
            return wire.call("chat", model=model, messages=messages(url), options=options)

        refused = chat("seeing", "https://example.org/a.png")["error"]
        assert refused["data"]["kind"] == "invalid_params"
        assert "nothing is fetched" in refused["message"]
        refused = chat("hybridd/demo-hf", f"data:image/png;base64,{encoded}")["error"]
        assert refused["data"] | {"message": ""} == {
            "kind": "unsupported", "capability": "vision", "format": "huggingface", "message": "",
        }  # fmt: skip
        assert client.loaded() == [], "nothing was loaded for that"
        made = chat("seeing", f"data:image/png;base64,{encoded}")["result"]
        assert made["usage"]["completion_tokens"] == 5
        again = chat("seeing", f"data:image/png;base64,{encoded}")["result"]
        assert again["message"] == made["message"]
        bad = chat("seeing", f"data:image/png;base64,{encoded[:80]}")["error"]
        assert bad["data"]["kind"] == "invalid_params"


@pytest.mark.parametrize("model", ["hybridd/demo-hf", "hybridd/demo-gguf"])
def test_options_that_no_load_takes_cost_no_model(daemon: RealDaemon, model: str) -> None:
    with daemon.client() as client:
        loaded = client.load(model)
        wrong: list[dict[str, Any]] = [
            {"kv_cache_type": "q9_9"},
            {"device": "tpu"},
            {"device": "cuda:0"} if model.endswith("gguf") else {"quantization": "int9"},
        ]
        for options in wrong:
            with pytest.raises((InvalidParams, Unsupported)):
                client.load(model, **options)
            with pytest.raises((InvalidParams, Unsupported)):
                client.generate(model, "a", load_options=options)
            with pytest.raises((InvalidParams, Unsupported)):
                client.configure(model, load_options=options)
        assert [(one.id, one.pid) for one in client.loaded()] == [(model, loaded.pid)]


def _missing_shard(path: Path) -> None:
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def _truncated(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])


def _other_config(path: Path, **values: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **values}))


def _no_tokenizer(path: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"):
        (path / name).unlink(missing_ok=True)


def _bad_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").write_text('{"model": 7}')


BAD: dict[str, Callable[[Path], None]] = {
    # What the daemon sees in the headers.
    "shard": _missing_shard,
    "truncated": _truncated,
    "no-tokenizer": _no_tokenizer,
    # What costs a worker each.
    "shapes": lambda path: _other_config(path, hidden_size=96, head_dim=24),
    "architecture": lambda path: _other_config(path, model_type="no-such-thing"),
    "layers": lambda path: _other_config(path, num_hidden_layers=40),
    "tokenizer": _bad_tokenizer,
}


@pytest.fixture(scope="module")
def bad(shared_daemon: RealDaemon) -> RealDaemon:
    """A daemon with all the bad models."""
    for name, spoil in BAD.items():
        path = shared_daemon.models / name
        shutil.copytree(DEMO, path)
        spoil(path)
    with shared_daemon.client() as client:
        client.rescan()
    return shared_daemon


@pytest.mark.parametrize("name", BAD)
def test_a_load_that_fails_leaves_nothing(bad: RealDaemon, name: str) -> None:
    with Wire(bad.socket) as wire:
        error = wire.call("models.load", model=name)["error"]
        assert error["data"]["kind"] in ("model_invalid", "load_failed"), error
        assert error["data"]["reason"]
        assert str(bad.directory) not in json.dumps(error)
        assert "Traceback" not in error["message"]
        shown = wire.call("models.loaded", all=True)["result"]["models"]
    templates = {one["pid"] for one in shown if one["status"] == "template"}
    assert all(one["status"] in ("template", "quarantined") for one in shown)
    left = set(bad.family()) - {bad.pid} - templates
    assert not [pid for pid in left if not _ends(pid)], f"{name} left processes behind"


def _ends(pid: int) -> bool:
    """Whether a process ends by itself; a worker's end is not waited for by a failed load."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            return bool(select.select([fd], [], [], NET_S)[0])
        finally:
            os.close(fd)
    return True
