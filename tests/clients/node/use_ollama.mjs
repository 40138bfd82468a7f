// The `ollama` package for Node: list, show, chat whole and streamed, embed, errors.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const { GGUF, HF, EMBEDDER, OLLAMA_HOST, TOKEN } = process.env;
const client = new Ollama({
  host: OLLAMA_HOST,
  headers: { Authorization: `Bearer ${TOKEN}` },
});
const messages = [{ role: "user", content: "Who are you?" }];
const options = { temperature: 0, num_predict: 40 };

const names = (await client.list()).models.map((model) => model.name);
for (const name of [GGUF, HF, EMBEDDER]) assert.ok(names.includes(name), names.join());
assert.equal((await client.show({ model: HF })).details.format, "huggingface");

const answers = {};
for (const model of [GGUF, HF]) {
  const whole = await client.chat({ model, messages, options });
  answers[model] = whole.message.content;
  let text = "";
  for await (const part of await client.chat({ model, messages, options, stream: true })) {
    text += part.message.content;
  }
  assert.equal(text, answers[model]);
}
assert.equal(answers[GGUF], answers[HF]);
assert.equal((await client.embed({ model: EMBEDDER, input: ["one", "two"] })).embeddings.length, 2);
await assert.rejects(client.chat({ model: "none", messages }), { status_code: 404 });
