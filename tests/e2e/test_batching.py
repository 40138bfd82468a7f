"""Several clients of one GGUF model at once, through the real socket."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from hybridctl import Client

from .conftest import RealDaemon

pytest.importorskip("llama_cpp", reason="needs the extra gguf")
pytest.importorskip("gguf", reason="the tests' own models are written with it")

DEMO = "hybridd/demo-gguf"
PROMPTS = [f"count {'one two three '[: 4 + n]}" for n in range(8)]
PARALLEL = 4
# Long enough that all clients have come before the first is done.
TOKENS = 200


@pytest.fixture
def tiny(daemon: RealDaemon) -> str:
    """A loaded random-weight model that takes four requests at a time."""
    from tests.make_gguf import write_tiny

    path = write_tiny("tiny-qwen2", daemon.models)
    with daemon.client() as client:
        client.rescan()
        found = next(m.id for m in client.list() if m.source and m.source.path == str(path))
        options = {"parallel": PARALLEL, "context_length": 1024}
        assert client.load(found, keepalive=-1, load_options=options).parallel == PARALLEL
    return found


def generate(daemon: RealDaemon, model: str, prompt: str) -> tuple[str, int]:
    """The streamed text of one greedy request on a connection of its own, and its tokens."""
    with (
        daemon.client() as client,
        client.generate(
            model, prompt, max_tokens=TOKENS, temperature=0, ignore_eos=True, stream=True
        ) as stream,
    ):
        text = "".join(delta.text for delta in stream)
        usage = stream.result().usage
        assert usage is not None
        return text, usage.completion_tokens


def test_eight_clients_get_what_each_would_get_alone(daemon: RealDaemon, tiny: str) -> None:
    alone = [generate(daemon, tiny, prompt) for prompt in PROMPTS]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        together = list(pool.map(lambda prompt: generate(daemon, tiny, prompt), PROMPTS))
    assert together == alone
    assert {tokens for _, tokens in alone} == {TOKENS}


def test_requests_run_side_by_side_and_a_client_that_leaves_makes_room(
    daemon: RealDaemon, tiny: str
) -> None:
    """Four run, the fifth waits; one of the four hangs up, and the fifth begins.

    The worker stands still meanwhile, so that none of the four can end by itself.
    """
    clients: list[Client] = [daemon.client() for _ in range(PARALLEL + 1)]
    endless = {"max_tokens": 100_000, "ignore_eos": True, "stream": True}
    try:
        runs = [iter(client.generate(tiny, "go on", **endless)) for client in clients[:PARALLEL]]
        for run in runs:
            next(run)  # all four have begun
        with daemon.client() as watcher:
            now = watcher.loaded()[0]
            os.kill(now.pid, signal.SIGSTOP)
            now = watcher.loaded()[0]
            assert (now.active_requests, now.queued_requests) == (PARALLEL, 0)
            with watcher.events("requests") as events, ThreadPoolExecutor(1) as pool:
                last = pool.submit(
                    lambda: clients[-1].generate(tiny, "me too", max_tokens=3, ignore_eos=True)
                )
                assert next(events).type == "queued"
                assert watcher.loaded()[0].queued_requests == 1
                clients[0].close()
                os.kill(now.pid, signal.SIGCONT)
                assert [next(events).type, next(events).type] == ["finished", "started"]
                assert last.result().usage.completion_tokens == 3
        for run in runs[1:]:
            next(run)  # nobody else was disturbed
    finally:
        for client in clients:
            client.close()


def test_the_second_turn_of_a_chat_says_what_was_cached(daemon: RealDaemon) -> None:
    first = [{"role": "user", "content": "How do I load a model?"}]
    with daemon.client() as client:
        answer = client.chat(DEMO, first, temperature=0)
        assert answer.usage.cached_tokens == 0
        then = {"role": "user", "content": "And how do I unload it?"}
        messages = [*first, {"role": "assistant", "content": answer.text}, then]
        second = client.chat(DEMO, messages, temperature=0)
    before = answer.usage.prompt_tokens + answer.usage.completion_tokens
    # The answer's end may be tokenized anew, its beginning and the whole question are not.
    assert answer.usage.prompt_tokens <= second.usage.cached_tokens <= before
    assert second.usage.cached_tokens < second.usage.prompt_tokens
