// The AI SDK with an OpenAI-compatible provider: text whole and streamed, embeddings, stopping.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, streamText } from "ai";

const { GGUF, HF, EMBEDDER, OPENAI_BASE_URL, OPENAI_API_KEY } = process.env;
const provider = createOpenAICompatible({
  name: "hybridd",
  baseURL: OPENAI_BASE_URL,
  apiKey: OPENAI_API_KEY,
  includeUsage: true,
});
const asked = { prompt: "Who are you?", temperature: 0, maxOutputTokens: 40 };

const answers = {};
for (const id of [GGUF, HF]) {
  const whole = await generateText({ model: provider(id), ...asked });
  answers[id] = whole.text;
  assert.ok(whole.text);
  assert.ok(whole.usage.outputTokens > 0);
  const streamed = streamText({ model: provider(id), ...asked });
  let text = "";
  for await (const part of streamed.textStream) text += part;
  assert.equal(text, whole.text);
  assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
  assert.equal(await streamed.finishReason, whole.finishReason);
}
assert.equal(answers[GGUF], answers[HF]);

const { embeddings } = await embedMany({
  model: provider.embeddingModel(EMBEDDER),
  values: ["one", "two"],
});
assert.equal(embeddings.length, 2);

const stop = new AbortController();
const left = streamText({
  model: provider(GGUF),
  prompt: "Tell a long story.",
  abortSignal: stop.signal,
  onError: () => {},
});
for await (const _ of left.textStream) {
  stop.abort();
  break;
}
