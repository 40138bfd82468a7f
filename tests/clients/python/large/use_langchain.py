"""`langchain-openai` and `langchain-ollama`: chats, completions, responses, embeddings, errors."""

import asyncio
import os

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

GGUF, HF, EMBEDDER = os.environ["GGUF"], os.environ["HF"], os.environ["EMBEDDER"]
URL, TOKEN = os.environ["URL"], os.environ["TOKEN"]
QUESTION = [HumanMessage("Who are you?")]
# Where they are and the key stand in the environment; Ollama's package knows no key of its own.
OLLAMA = {"base_url": URL, "client_kwargs": {"headers": {"Authorization": f"Bearer {TOKEN}"}}}


def by_openai(name: str, **more: object) -> ChatOpenAI:
    return ChatOpenAI(model=name, temperature=0, max_tokens=40, max_retries=0, **more)


def by_ollama(name: str) -> ChatOllama:
    return ChatOllama(model=name, temperature=0, num_predict=40, **OLLAMA)


answers = {}
for make in (by_openai, by_ollama):
    for name in (GGUF, HF):
        chat = make(name)
        whole = chat.invoke(QUESTION)
        answers[make.__name__, name] = whole.content
        assert whole.content
        assert whole.usage_metadata["output_tokens"] > 0
        assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == whole.content
assert len(set(answers.values())) == 1, "one model in two formats by two packages says one thing"
answer = answers["by_openai", GGUF]

chunks = list(by_openai(GGUF, stream_usage=True).stream(QUESTION))
assert sum(c.usage_metadata["output_tokens"] for c in chunks if c.usage_metadata) > 0

response = by_openai(GGUF, use_responses_api=True)
assert response.invoke(QUESTION).text == answer
assert "".join(chunk.text for chunk in response.stream(QUESTION)) == answer

both = by_openai(GGUF).batch([QUESTION, [SystemMessage("Be brief."), *QUESTION]])
assert both[0].content == answer

plain = OpenAI(model=GGUF, temperature=0, max_tokens=5).invoke("Hello")
assert plain
assert "".join(OpenAI(model=GGUF, temperature=0, max_tokens=5).stream("Hello")) == plain
assert (
    OllamaLLM(model=GGUF, temperature=0, num_predict=40, **OLLAMA).invoke("Who are you?") == answer
)

# Else texts come as the ids of another model's tokens.
packed = OpenAIEmbeddings(model=EMBEDDER, check_embedding_ctx_length=False)
vectors = packed.embed_documents(["one", "two"])
others = OllamaEmbeddings(model=EMBEDDER, **OLLAMA).embed_documents(["one", "two"])
assert len(vectors) == 2
assert all(
    abs(a - b) < 1e-6
    for one, other in zip(vectors, others, strict=True)
    for a, b in zip(one, other, strict=True)
)


class Name(BaseModel):
    """Who it is."""

    name: str


for wrong, expected in (
    (lambda: by_openai("none").invoke(QUESTION), openai.NotFoundError),
    (
        lambda: by_openai(GGUF).with_structured_output(Name, method="json_mode").invoke(QUESTION),
        openai.BadRequestError,
    ),
    (lambda: by_openai(GGUF).invoke([HumanMessage("word " * 3000)]), openai.BadRequestError),
):
    try:
        wrong()
    except expected as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{expected.__name__} was expected")


async def at_once() -> None:
    """Both packages and both models at a time."""

    async def ask(chat: ChatOpenAI | ChatOllama) -> str:
        return "".join([chunk.content async for chunk in chat.astream(QUESTION)])

    chats = [make(name) for make in (by_openai, by_ollama) for name in (GGUF, HF)]
    assert await asyncio.gather(*map(ask, chats)) == [answer] * 4


asyncio.run(at_once())
