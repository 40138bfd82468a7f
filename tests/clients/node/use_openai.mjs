// The `openai` package for Node: models, chat whole and streamed, embeddings, responses, errors.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { GGUF, HF, EMBEDDER } = process.env;
const client = new OpenAI(); // OPENAI_BASE_URL and OPENAI_API_KEY are set
const messages = [{ role: "user", content: "Who are you?" }];
const greedy = { messages, temperature: 0, max_tokens: 40 };

const ids = [];
for await (const model of client.models.list()) ids.push(model.id);
for (const id of [GGUF, HF, EMBEDDER]) assert.ok(ids.includes(id), ids.join());
assert.equal((await client.models.retrieve(GGUF)).id, GGUF);

const answers = {};
for (const model of [GGUF, HF]) {
  const whole = await client.chat.completions.create({ model, ...greedy });
  answers[model] = whole.choices[0].message.content;
  assert.ok(answers[model]);
  let text = "";
  const stream = await client.chat.completions.create({ model, ...greedy, stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, answers[model]);
  // The helper is strict about ids, indexes and finish reasons.
  const helper = client.chat.completions.stream({ model, ...greedy });
  assert.equal(await helper.finalContent(), answers[model]);
}
assert.equal(answers[GGUF], answers[HF]);

const vectors = await client.embeddings.create({ model: EMBEDDER, input: ["one", "two"] });
const floats = await client.embeddings.create({
  model: EMBEDDER,
  input: ["one", "two"],
  encoding_format: "float",
});
assert.equal(vectors.data[0].embedding.length, floats.data[0].embedding.length);
assert.ok(Math.abs(vectors.data[1].embedding[3] - floats.data[1].embedding[3]) < 1e-6);

const response = await client.responses.create({
  model: GGUF,
  input: "Who are you?",
  temperature: 0,
  max_output_tokens: 40,
});
assert.equal(response.output_text, answers[GGUF]);
const kinds = [];
const events = await client.responses.create({
  model: GGUF,
  input: "Who are you?",
  temperature: 0,
  max_output_tokens: 40,
  stream: true,
});
for await (const event of events) kinds.push(event.type);
assert.equal(kinds[0], "response.created");
assert.equal(kinds.at(-1), "response.completed");

await assert.rejects(
  client.chat.completions.create({ model: "none", messages }),
  (error) => error.status === 404 && error.message.length > 0,
);
await assert.rejects(client.chat.completions.create({ model: GGUF, messages: [] }), {
  status: 400,
});
