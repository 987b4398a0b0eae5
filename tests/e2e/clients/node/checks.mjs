// Checks with the official `openai` package, one JSON line a check: {"name", "ok", "error"}.
// Environment: BASE_URL (with /v1), MODEL, ALIAS, EMBEDS ("1" where the engines embed), CONTEXT.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { BASE_URL, MODEL, ALIAS, EMBEDS, CONTEXT } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: "any", maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "Say hello." }];
const tool = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const checks = {
  async chat() {
    const answer = await client.chat.completions.create({ model: MODEL, messages, max_tokens: 8 });
    assert.equal(answer.object, "chat.completion");
    assert.ok(answer.usage.completion_tokens >= 1 && answer.usage.completion_tokens <= 8);
  },
  async headers() {
    const { response } = await client.chat.completions
      .create({ model: MODEL, messages, max_tokens: 1 }, { headers: { "x-request-id": "node-1" } })
      .withResponse();
    assert.equal(response.headers.get("x-request-id"), "node-1");
    assert.match(response.headers.get("x-router-service"), /^engine-[01]$/);
  },
  async stream() {
    const chunks = await collect(
      await client.chat.completions.create({
        model: ALIAS, messages, max_tokens: 8, stream: true, ignore_eos: true,
      }),
    );
    assert.ok(chunks.length > 3);
    assert.ok(chunks.every((chunk) => chunk.choices.length === 1 && !chunk.usage));
    assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
  },
  async include_usage() {
    const chunks = await collect(
      await client.chat.completions.create({
        model: MODEL, messages, max_tokens: 6, stream: true, ignore_eos: true,
        stream_options: { include_usage: true },
      }),
    );
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.equal(chunks.at(-1).usage.completion_tokens, 6);
  },
  async leave_early() {
    const stream = await client.chat.completions.create({
      model: MODEL, messages, max_tokens: 400, stream: true, ignore_eos: true,
    });
    for await (const _ of stream) break;
  },
  async tools() {
    const answer = await client.chat.completions.create({
      model: MODEL, messages, max_tokens: 60, tools: [tool],
      tool_choice: { type: "function", function: { name: "get_weather" } },
    });
    assert.equal(answer.choices[0].message.tool_calls[0].function.name, "get_weather");
  },
  async tools_stream() {
    const chunks = await collect(
      await client.chat.completions.create({
        model: MODEL, messages, max_tokens: 60, tools: [tool], stream: true,
        tool_choice: { type: "function", function: { name: "get_weather" } },
      }),
    );
    const calls = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []);
    assert.ok(calls.some((call) => call.function?.name === "get_weather"));
  },
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.deepEqual(names.toSorted(), [MODEL, ALIAS].toSorted());
    for (const name of names) assert.equal((await client.models.retrieve(name)).id, name);
  },
  async embeddings() {
    const asked = client.embeddings.create({ model: MODEL, input: ["one", "two"] });
    if (EMBEDS !== "1") return assert.rejects(asked, OpenAI.NotFoundError);
    assert.equal((await asked).data.length, 2);
  },
  async not_found_error() {
    await assert.rejects(
      client.chat.completions.create({ model: "no/such", messages }),
      (error) =>
        error instanceof OpenAI.NotFoundError &&
        error.code === "model_not_found" &&
        error.type === "invalid_request_error" &&
        error.param === "model" &&
        Boolean(error.requestID),
    );
  },
  async bad_request_error() {
    await assert.rejects(
      client.chat.completions.create({ model: MODEL, messages, max_tokens: Number(CONTEXT) * 10 }),
      OpenAI.BadRequestError,
    );
  },
};

for (const [name, check] of Object.entries(checks)) {
  let error = null;
  try {
    await check();
  } catch (caught) {
    error = String(caught.stack ?? caught);
  }
  console.log(JSON.stringify({ name, ok: error === null, error }));
}
