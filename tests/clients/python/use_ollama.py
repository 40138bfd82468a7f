"""The `ollama` package: tags, show, chat, generate, embed, keep_alive, errors."""

import asyncio
import os

import ollama

GGUF, HF, EMBEDDER = os.environ["GGUF"], os.environ["HF"], os.environ["EMBEDDER"]
headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}
client = ollama.Client(headers=headers)  # OLLAMA_HOST is set
QUESTION = [{"role": "user", "content": "Who are you?"}]
GREEDY = {"temperature": 0, "num_predict": 40}

names = [model.model for model in client.list().models]
assert {GGUF, HF, EMBEDDER} <= set(names), names
shown = client.show(GGUF)
assert shown.details.format == "gguf"
assert "completion" in shown.capabilities
assert shown.modelinfo

answers = {}
for name in (GGUF, HF):
    whole = client.chat(name, QUESTION, options=GREEDY)
    answers[name] = whole.message.content
    assert answers[name]
    assert whole.done
    assert whole.eval_count > 0
    assert whole.total_duration > whole.eval_duration > 0
    parts = list(client.chat(name, QUESTION, options=GREEDY, stream=True))
    assert "".join(part.message.content or "" for part in parts) == answers[name]
    assert [part.done for part in parts[-2:]] == [False, True]
assert answers[GGUF] == answers[HF]

once = client.generate(GGUF, "Hello", raw=True, options={"temperature": 0, "num_predict": 5})
streamed = client.generate(
    GGUF, "Hello", raw=True, options={"temperature": 0, "num_predict": 5}, stream=True
)
assert "".join(part.response for part in streamed) == once.response

vectors = client.embed(EMBEDDER, ["one", "two"])
assert len(vectors.embeddings) == 2
single = client.embeddings(EMBEDDER, "one")
assert len(single.embedding) == len(vectors.embeddings[0])

assert client.chat(GGUF, [], keep_alive="5m").done_reason == "load"
assert GGUF in [model.model for model in client.ps().models]
assert client.generate(GGUF, "", keep_alive=0).done_reason == "unload"
assert GGUF not in [model.model for model in client.ps().models]
assert client.pull(GGUF).status == "success"

for wrong in (
    lambda: client.chat("none", QUESTION),
    lambda: list(client.chat("none", QUESTION, stream=True)),
    lambda: client.show("none"),
    lambda: client.pull("none"),
):
    try:
        wrong()
    except ollama.ResponseError as error:
        assert error.status_code >= 400
        assert error.error
    else:
        raise AssertionError("an error was expected")


async def at_once() -> None:
    """Two at a time."""
    both = ollama.AsyncClient(headers=headers)
    made = await asyncio.gather(*(both.chat(n, QUESTION, options=GREEDY) for n in (GGUF, HF)))
    assert [each.message.content for each in made] == [answers[GGUF]] * 2


asyncio.run(at_once())
