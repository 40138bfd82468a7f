"""The `anthropic` package: messages whole and streamed, counting, errors."""

import asyncio
import os

import anthropic

GGUF, HF = os.environ["GGUF"], os.environ["HF"]
client = anthropic.Anthropic()  # ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY are set
GREEDY = {"temperature": 0}  # which the package names no more
QUESTION = [{"role": "user", "content": "Who are you?"}]

answers = {}
for name in (GGUF, HF):
    whole = client.messages.create(model=name, max_tokens=40, extra_body=GREEDY, messages=QUESTION)
    answers[name] = "".join(block.text for block in whole.content if block.type == "text")
    assert answers[name]
    assert whole.stop_reason in ("end_turn", "max_tokens")
    assert whole.usage.output_tokens > 0
    with client.messages.stream(
        model=name, max_tokens=40, extra_body=GREEDY, messages=QUESTION
    ) as stream:
        assert "".join(stream.text_stream) == answers[name]
        final = stream.get_final_message()
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason == whole.stop_reason
assert answers[GGUF] == answers[HF]

blocks = client.messages.create(
    model=GGUF,
    max_tokens=64_000,
    timeout=60,  # else the package wants so many tokens streamed
    extra_body=GREEDY,
    system=[{"type": "text", "text": "Answer.", "cache_control": {"type": "ephemeral"}}],
    messages=[{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}],
    stop_sequences=["."],
    metadata={"user_id": "someone"},
)
assert blocks.stop_reason in ("stop_sequence", "end_turn", "max_tokens")

# A name of their own, which http.model_map gives to one of ours.
mapped = client.messages.create(
    model="claude-something", max_tokens=40, extra_body=GREEDY, messages=QUESTION
)
assert mapped.content[0].text == answers[GGUF]

counted = client.messages.count_tokens(model=GGUF, messages=QUESTION)
assert counted.input_tokens == whole.usage.input_tokens

for wrong, expected in (
    (
        lambda: client.messages.create(model="none", max_tokens=5, messages=QUESTION),
        anthropic.NotFoundError,
    ),
    (
        lambda: client.messages.create(model=GGUF, max_tokens=5, messages=[]),
        anthropic.BadRequestError,
    ),
    (
        lambda: client.with_options(api_key="wrong" * 8).messages.create(
            model=GGUF, max_tokens=5, messages=QUESTION
        ),
        anthropic.AuthenticationError,
    ),
):
    try:
        wrong()
    except expected as error:
        assert error.body["type"] == "error"
        assert error.body["error"]["message"]
    else:
        raise AssertionError(f"{expected.__name__} was expected")


async def at_once() -> None:
    """Two at a time."""
    async with anthropic.AsyncAnthropic() as both:
        made = await asyncio.gather(
            *(
                both.messages.create(model=n, max_tokens=40, extra_body=GREEDY, messages=QUESTION)
                for n in (GGUF, HF)
            )
        )
        assert [each.content[0].text for each in made] == [answers[GGUF]] * 2


asyncio.run(at_once())
