"""The `openai` package: sync, async, streamed, embeddings, responses, errors, retries."""

import asyncio
import os

import openai

GGUF, HF, EMBEDDER = os.environ["GGUF"], os.environ["HF"], os.environ["EMBEDDER"]
client = openai.OpenAI()  # OPENAI_BASE_URL and OPENAI_API_KEY stand in the environment
QUESTION = [{"role": "user", "content": "Who are you?"}]

models = [model.id for model in client.models.list()]
assert {GGUF, HF, EMBEDDER} <= set(models), models
assert client.models.retrieve(GGUF).id == GGUF

answers = {}
for name in (GGUF, HF):
    whole = client.chat.completions.create(
        model=name, messages=QUESTION, temperature=0, max_tokens=40
    )
    answers[name] = whole.choices[0].message.content
    assert answers[name]
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

    streamed = client.chat.completions.create(
        model=name,
        messages=QUESTION,
        temperature=0,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage, reason = "", None, None
    for chunk in streamed:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
        usage = chunk.usage or usage
    assert text == answers[name]
    assert usage == whole.usage or usage.completion_tokens == whole.usage.completion_tokens
    assert reason == whole.choices[0].finish_reason
assert answers[GGUF] == answers[HF], "one model in two formats says one thing"

# The stream helper of the package, which is strict about ids, indexes and the last chunk.
with client.chat.completions.stream(
    model=GGUF, messages=QUESTION, temperature=0, max_tokens=40
) as stream:
    for _ in stream:
        pass
    final = stream.get_final_completion()
assert final.choices[0].message.content == answers[GGUF]

several = client.chat.completions.create(
    model=GGUF, messages=QUESTION, n=2, max_tokens=8, seed=1, logprobs=True, top_logprobs=3
)
assert [choice.index for choice in several.choices] == [0, 1]
assert len(several.choices[0].logprobs.content[0].top_logprobs) == 3

completion = client.completions.create(model=GGUF, prompt="Hello", max_tokens=5, temperature=0)
echoed = client.completions.create(
    model=GGUF, prompt="Hello", max_tokens=5, temperature=0, echo=True
)
assert echoed.choices[0].text == "Hello" + completion.choices[0].text
listed = client.completions.create(model=GGUF, prompt=["a", "b"], max_tokens=3)
assert [choice.index for choice in listed.choices] == [0, 1]
text = "".join(
    chunk.choices[0].text
    for chunk in client.completions.create(
        model=GGUF, prompt="Hello", max_tokens=5, temperature=0, stream=True
    )
    if chunk.choices
)
assert text == completion.choices[0].text

vectors = client.embeddings.create(model=EMBEDDER, input=["one", "two"])
plain = client.embeddings.create(model=EMBEDDER, input=["one", "two"], encoding_format="float")
assert len(vectors.data) == 2
for packed, numbers in zip(vectors.data, plain.data, strict=True):
    assert all(abs(a - b) < 1e-6 for a, b in zip(packed.embedding, numbers.embedding, strict=True))

answer = client.responses.create(
    model=GGUF, input="Who are you?", temperature=0, max_output_tokens=40
)
assert answer.output_text == answers[GGUF]
kinds = []
with client.responses.stream(
    model=GGUF, input="Who are you?", temperature=0, max_output_tokens=40
) as events:
    for event in events:
        kinds.append(event.type)
    done = events.get_final_response()
assert kinds[0] == "response.created"
assert kinds[-1] == "response.completed"
assert done.output_text == answers[GGUF]

for wrong, expected in (
    (lambda: client.chat.completions.create(model="none", messages=QUESTION), openai.NotFoundError),
    (
        lambda: client.chat.completions.create(model=GGUF, messages=QUESTION, temperature=-1),
        openai.BadRequestError,
    ),
    (lambda: client.chat.completions.create(model=GGUF, messages=[]), openai.BadRequestError),
    (lambda: client.embeddings.create(model=GGUF, input="x"), openai.BadRequestError),
    (lambda: client.with_options(api_key="wrong" * 8).models.list(), openai.AuthenticationError),
):
    try:
        wrong()
    except expected as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{expected.__name__} was expected")


async def at_once() -> None:
    """Several at a time, one of them left in the middle."""
    async with openai.AsyncOpenAI() as both:

        async def ask(name: str) -> str:
            made = await both.chat.completions.create(
                model=name, messages=QUESTION, temperature=0, max_tokens=40
            )
            return made.choices[0].message.content

        assert await asyncio.gather(ask(GGUF), ask(GGUF), ask(HF)) == [answers[GGUF]] * 3
        left = await both.chat.completions.create(model=GGUF, messages=QUESTION, stream=True)
        async for _ in left:
            break
        await left.close()
        assert await ask(GGUF) == answers[GGUF]


asyncio.run(at_once())
