"""`litellm`: OpenAI's road and Ollama's, whole, streamed, async; embeddings, reranking, errors."""

import asyncio
import os

# Without it, importing fetches a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

GGUF, HF, EMBEDDER, RANKER = (os.environ[name] for name in ("GGUF", "HF", "EMBEDDER", "RANKER"))
URL, TOKEN = os.environ["URL"], os.environ["TOKEN"]
QUESTION = [{"role": "user", "content": "Who are you?"}]
OPENAI = {"api_base": f"{URL}/v1", "api_key": TOKEN}
OLLAMA = {"api_base": URL, "api_key": TOKEN}
SAID = {"messages": QUESTION, "temperature": 0, "max_tokens": 40}


def text_of(stream: object) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


answers = {}
for road, where in (("openai", OPENAI), ("ollama_chat", OLLAMA)):
    for name in (GGUF, HF):
        whole = litellm.completion(f"{road}/{name}", **SAID, **where)
        answers[road, name] = whole.choices[0].message.content
        assert answers[road, name]
        assert whole.choices[0].finish_reason in ("stop", "length")
        assert whole.usage.completion_tokens > 0
        streamed = litellm.completion(f"{road}/{name}", stream=True, **SAID, **where)
        assert text_of(streamed) == answers[road, name]
assert len(set(answers.values())) == 1, "one model in two formats by two roads says one thing"

told = list(
    litellm.completion(
        f"openai/{GGUF}", stream=True, stream_options={"include_usage": True}, **SAID, **OPENAI
    )
)
assert told[-1].usage.completion_tokens > 0

completion = litellm.text_completion(
    "Hello", model=f"text-completion-openai/{GGUF}", max_tokens=5, temperature=0, **OPENAI
)
assert completion.choices[0].text

response = litellm.responses(
    "Who are you?", f"openai/{GGUF}", temperature=0, max_output_tokens=40, **OPENAI
)
assert response.output[0].content[0].text == answers["openai", GGUF]
kinds = [
    str(getattr(event.type, "value", event.type))
    for event in litellm.responses("Who are you?", f"openai/{GGUF}", stream=True, **OPENAI)
]
assert kinds[0] == "response.created", kinds
assert kinds[-1] == "response.completed", kinds

vectors = {}
for road, where in (("openai", OPENAI), ("ollama", OLLAMA)):
    made = litellm.embedding(f"{road}/{EMBEDDER}", input=["one", "two"], **where)
    vectors[road] = [list(each["embedding"]) for each in made.data]
    assert len(vectors[road]) == 2
assert all(
    abs(a - b) < 1e-6
    for one, other in zip(vectors["openai"], vectors["ollama"], strict=True)
    for a, b in zip(one, other, strict=True)
)

DOCUMENTS = ["grass is green", "load a model"]
for road, base in (("cohere", f"{URL}/v2/rerank"), ("jina_ai", f"{URL}/v1/rerank")):
    ranked = litellm.rerank(
        f"{road}/{RANKER}",
        query="load the model",
        documents=DOCUMENTS,
        top_n=1,
        api_base=base,
        api_key=TOKEN,
    )
    assert [each["index"] for each in ranked.results] == [1], ranked

for road, changed, expected in (
    ("openai/none", {}, litellm.NotFoundError),
    (f"openai/{GGUF}", {"temperature": -1}, litellm.BadRequestError),
    (f"openai/{GGUF}", {"messages": [*QUESTION * 3000]}, litellm.ContextWindowExceededError),
    (f"openai/{GGUF}", {"api_key": "wrong" * 8}, litellm.AuthenticationError),
):
    try:
        litellm.completion(road, num_retries=0, **{**SAID, **OPENAI, **changed})
    except expected as error:
        assert str(error)
    else:
        raise AssertionError(f"{expected.__name__} was expected of {road}")


async def at_once() -> None:
    """Both models at a time, whole and streamed."""

    async def ask(name: str) -> str:
        made = await litellm.acompletion(f"openai/{name}", stream=True, **SAID, **OPENAI)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in made])

    assert await asyncio.gather(ask(GGUF), ask(HF), ask(GGUF)) == [answers["openai", GGUF]] * 3


asyncio.run(at_once())
