"""A draft model through a real daemon: named by the command line, used by every request."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytest.importorskip("gguf", reason="gguf is not installed")

from hybridd.wire.errors import InvalidParams, LoadFailed, ModelNotFound, Unsupported
from tests.make_gguf import write_tiny
from tests.support_models import DEMO_GGUF

MODEL, DRAFT = "demo-big:F16", "demo-small:F16"
QUESTION = "What is the capital of France?"
CHAT = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def client(daemon):
    for name in ("big", "small"):
        shutil.copy(DEMO_GGUF, daemon.models / f"demo-{name}-F16.gguf")
    with daemon.client() as made:
        made.rescan()
        yield made


def loaded(daemon):
    made = daemon.ctl("ps", "--json")
    assert made.returncode == 0, made.stderr
    return {m["id"]: m for m in json.loads(made.stdout)}


def test_by_the_command_line(daemon, client):
    plain = client.chat(MODEL, CHAT, temperature=0)
    assert plain.timings.draft_tokens is None
    without = loaded(daemon)[MODEL]
    said = daemon.ctl("configure", MODEL, "--load-option", "draft_model=demo-small")
    assert said.returncode == 0, said.stderr
    drafted = client.chat(MODEL, CHAT, temperature=0)
    assert drafted.text == plain.text
    assert drafted.usage == plain.usage
    assert drafted.timings.draft_accepted_tokens > 0
    instance = loaded(daemon)[MODEL]
    assert instance["load_options"]["draft_model"] == DRAFT
    assert instance["pid"] != without["pid"]
    reserved = [each["memory"]["reserved_bytes"] for each in (instance, without)]
    assert reserved[0] - reserved[1] > DEMO_GGUF.stat().st_size // 2
    again = daemon.ctl("run", MODEL, QUESTION, "--verbose", "--temperature", "0")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == plain.text.strip()
    assert "drafted" in again.stderr
    assert loaded(daemon)[MODEL]["pid"] == instance["pid"]


def test_its_files_may_go_while_it_is_loaded(daemon, client):
    made = daemon.ctl("load", MODEL, "--draft-model", "demo-small")
    assert made.returncode == 0, made.stderr
    assert loaded(daemon)[MODEL]["load_options"]["draft_model"] == DRAFT
    text = client.chat(MODEL, CHAT, temperature=0).text
    (daemon.models / "demo-small-F16.gguf").unlink()
    client.rescan()
    options = {"draft_model": DRAFT}
    assert client.chat(MODEL, CHAT, temperature=0, load_options=options).text == text
    assert loaded(daemon)[MODEL]["stale"]
    client.unload(MODEL)
    with pytest.raises(ModelNotFound):
        client.load(MODEL, load_options=options)
    assert client.chat(MODEL, CHAT, temperature=0).text == text


def test_what_is_refused(daemon, client):
    for name in ("tiny-llama", "tiny-mamba", "tiny-bert"):
        write_tiny(name, daemon.models)
    client.rescan()
    for model, draft, error, says in (
        (MODEL, "nothing-like-it", ModelNotFound, "nothing-like-it"),
        (MODEL, str(DEMO_GGUF), ModelNotFound, "there is no model"),
        (MODEL, "hybridd/demo-hf", InvalidParams, "is a huggingface model"),
        (MODEL, "tiny-bert:F32", InvalidParams, "generates no text"),
        (MODEL, "tiny-llama:F32", LoadFailed, "tiny-llama:F32 cannot draft for demo-big:F16"),
        (MODEL, "tiny-mamba:F32", Unsupported, "keeps a state"),
        ("tiny-mamba:F32", "tiny-llama:F32", Unsupported, "keeps a state"),
        ("tiny-bert:F32", "tiny-llama:F32", Unsupported, "generates none"),
        ("hybridd/demo-hf", DRAFT, Unsupported, "no draft models"),
    ):
        with pytest.raises(error, match=says) as caught:
            client.load(model, load_options={"draft_model": draft})
        assert str(daemon.models) not in str(caught.value)
    assert client.chat(MODEL, CHAT, temperature=0).text
