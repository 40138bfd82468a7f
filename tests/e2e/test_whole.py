"""The whole of it: real daemon, real engines, real CLI and SDK, both demo models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridctl import Client, ModelNotFound, WorkerDied
from hybridctl.sdk.errors import Cancelled

pytest.importorskip("llama_cpp", reason="needs the extra gguf")
pytest.importorskip("torch", reason="needs the extra huggingface")

GGUF, HF = "hybridd/demo-gguf", "hybridd/demo-hf"
QUESTION = "How do I load a model?"
MESSAGES = [{"role": "user", "content": QUESTION}]
DEMO = Path(__file__).parents[2] / "hybridd" / "demo"


def test_a_day_of_a_user(daemon):
    """Load both formats, stream from both at once, cancel, kill a worker, recover, shut down."""
    listed = json.loads(daemon.ctl("list", "--json").stdout)
    assert {m["id"] for m in listed} >= {GGUF, HF}
    for model in (GGUF, HF):
        assert daemon.ctl("load", model).returncode == 0

    with daemon.client() as client:
        assert {m.id for m in client.loaded()} == {GGUF, HF}
        texts = _stream_from_both_at_once(client)
        assert texts[GGUF] == texts[HF], "the same weights must give the same greedy text"
        assert "hybridctl load" in texts[GGUF]

        with client.generate(GGUF, "To load", max_tokens=None, ignore_eos=True, stream=True) as s:
            next(iter(s))
            s.cancel()
            with pytest.raises(Cancelled):
                s.result()
        assert client.chat(GGUF, MESSAGES, temperature=0).text == texts[GGUF]

        pid = next(m.pid for m in client.loaded() if m.id == HF)
        with client.generate(HF, "To load", max_tokens=1000, ignore_eos=True, stream=True) as s:
            next(iter(s))
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerDied) as died:
                s.result()
        assert died.value.data["signal"] == "SIGKILL"
        assert client.chat(HF, MESSAGES, temperature=0).text == texts[HF], "it is loaded anew"

    ran = daemon.ctl("run", GGUF, QUESTION, "--temperature", "0")
    assert ran.returncode == 0
    assert ran.stdout.strip() == texts[GGUF].strip()
    assert daemon.stop() == 0


def _stream_from_both_at_once(client: Client) -> dict[str, str]:
    streams = {
        model: client.chat(model, MESSAGES, temperature=0, stream=True) for model in (GGUF, HF)
    }
    iterators = {model: iter(stream) for model, stream in streams.items()}
    texts = dict.fromkeys(streams, "")
    while iterators:
        for model, iterator in list(iterators.items()):
            delta = next(iterator, None)
            if delta is None:
                assert streams[model].result().text == texts[model]
                del iterators[model]
            else:
                texts[model] += delta.text
    return texts


def test_a_file_appears_and_disappears(daemon):
    with daemon.client() as client, daemon.client() as watcher:
        client.rescan()
        with watcher.events("models") as events:
            target = daemon.models / "pub" / "repo" / "model-F16.gguf"
            target.parent.mkdir(parents=True)
            shutil.copy(next((DEMO / "demo-gguf").glob("*.gguf")), target)
            event = next(e for e in events if e.type == "added")
            assert event.raw["id"] == "pub/repo:F16"
            assert client.show("pub/repo").id == "pub/repo:F16"
            os.unlink(target)
            event = next(e for e in events if e.type == "removed")
            assert event.raw["id"] == "pub/repo:F16"
    with daemon.client() as client, pytest.raises(ModelNotFound):
        client.show("pub/repo")


def test_the_daemon_answers_while_a_model_loads(daemon):
    """Loading is in the background, and its progress is told."""
    (daemon.models / "slow.echo").write_text('{"load_s": 1.0, "load_steps": 20}')
    with daemon.client() as client, daemon.client() as other:
        client.rescan()
        seen = []
        loader = threading.Thread(
            target=lambda: client.load("slow", on_progress=lambda p: seen.append(p.fraction))
        )
        loader.start()
        answered = 0
        while loader.is_alive():
            other.ping()
            assert other.list()
            answered += 1
        loader.join()
        assert answered > 1
        assert len(set(seen)) > 2
        assert seen == sorted(seen) or max(seen) == 1.0


def test_switching_within_max_loaded(make_daemon: Callable):
    """With room for one, two models take turns; the idle one goes."""
    daemon = make_daemon(HYBRIDD_LIMITS_MAX_LOADED="1")
    with daemon.client() as client:
        for model in (GGUF, HF, GGUF):
            assert "hybridctl load" in client.chat(model, MESSAGES, temperature=0).text
            assert [m.id for m in client.loaded()] == [model]


def test_minus_nine_leaves_nobody(make_daemon: Callable):
    """Workers and templates end with the daemon, however it ends, and a new one serves at once."""
    daemon = make_daemon()
    with daemon.client() as client:
        client.load(GGUF)
        client.load(HF)
    before = daemon.family()
    assert len(before) >= 4, "the daemon, two workers and at least one template"
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.wait()
    daemon.wait_alone()
    assert daemon.family() == []
    daemon.start()
    with daemon.client() as client:
        assert client.chat(GGUF, MESSAGES, temperature=0).text


def templates(client) -> dict[str, int]:
    """The pids of the templates, by their ids."""
    shown = client.call("models.loaded", all=True)["models"]
    return {one["id"]: one["pid"] for one in shown if one["status"] == "template"}


def test_a_gguf_model_comes_back_by_a_template_of_its_own(daemon):
    """Its vocabulary stays for a while; where it cannot, the model comes back all the same."""
    own = f"template:gguf:{GGUF}"
    with daemon.client() as client:
        said = client.chat(GGUF, MESSAGES, temperature=0).text
        first = templates(client)
        assert set(first) == {"template:gguf", own}
        client.unload(GGUF)
        assert client.chat(GGUF, MESSAGES, temperature=0).text == said
        assert templates(client) == first
        client.unload(GGUF)
        os.kill(first[own], signal.SIGKILL)
        assert client.chat(GGUF, MESSAGES, temperature=0).text == said
        assert templates(client)[own] != first[own]


def test_no_vocabulary_is_kept_where_none_is_wanted(make_daemon: Callable):
    daemon = make_daemon(HYBRIDD_WORKERS_KEPT_VOCABULARIES="0")
    with daemon.client() as client:
        assert client.chat(GGUF, MESSAGES, temperature=0).text
        assert set(templates(client)) == {"template:gguf"}


def test_workers_outlive_their_templates(daemon):
    with daemon.client() as client:
        client.load(GGUF)
        for pid in templates(client).values():
            os.kill(pid, signal.SIGKILL)
        assert client.chat(GGUF, MESSAGES, temperature=0).text
        client.unload(GGUF)
        assert client.chat(GGUF, MESSAGES, temperature=0).text, "a new template forks a new worker"
