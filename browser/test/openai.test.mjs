// OpenAI's own client against the service.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { serve } from "../server.mjs";

const model = "demo+facts";
const prompt = "The keeper of Skarn light is";
let server, client;

before(async () => {
  server = await serve();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key, maxRetries: 0 });
});
after(() => server?.stop());

test("models are listed", async () => {
  const ids = (await client.models.list()).data.map((m) => m.id);
  assert.deepEqual(ids, ["demo", model]);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("completions and chats give the same greedy answer, whole or as a stream", async () => {
  const whole = await client.completions.create({ model, prompt, temperature: 0 });
  const text = whole.choices[0].text;
  assert.ok(text.length > 0 && whole.usage.total_tokens === whole.usage.prompt_tokens + whole.usage.completion_tokens);
  assert.match(whole.poa.request, /^[0-9a-f]{64}$/);
  const messages = [{ role: "user", content: prompt }];
  const chat = await client.chat.completions.create({ model, messages, max_tokens: 8 });
  assert.equal(chat.choices[0].message.content, text);
  assert.equal(chat.choices[0].finish_reason, "stop");
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 8, stream: true, stream_options: { include_usage: true } });
  let streamed = "", last, usage;
  for await (const chunk of stream) {
    streamed += chunk.choices[0]?.delta.content ?? "";
    last = chunk.choices[0]?.finish_reason ?? last;
    usage = chunk.usage ?? usage;
  }
  assert.deepEqual([streamed, last, usage.completion_tokens], [text, "stop", chat.usage.completion_tokens]);
});

test("what can't be honoured is refused by name, as the client's own errors", async () => {
  const refused = (more) => client.completions.create({ model, prompt, ...more }).then(() => assert.fail("it was answered"), (error) => error);
  const warm = await refused({ temperature: 0.7 });
  assert.ok(warm instanceof OpenAI.BadRequestError && warm.param === "temperature", `${warm}`);
  assert.equal((await refused({ logprobs: 3 })).param, "logprobs");
  const long = await refused({ prompt: "light ".repeat(40) });
  assert.ok(long.code === "context_length_exceeded" && /\d+ tokens/.test(long.message), `${long}`);
  assert.ok((await refused({ model: "nobody" })) instanceof OpenAI.NotFoundError);
  const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "poa_wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});
