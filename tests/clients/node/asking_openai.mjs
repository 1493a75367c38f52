// Asks the gateway with the official client for JavaScript.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { API_KEY, BASE_URL, PARAMETERS, POOR_KEY, QUESTION, WORDS, main, raised } from "./said.mjs";

const client = (apiKey = API_KEY, maxRetries = 0) =>
  new OpenAI({ baseURL: BASE_URL, apiKey, maxRetries, timeout: 20_000 });
const CHAT = { model: "med", messages: [{ role: "user", content: QUESTION }] };
const TOOL = {
  type: "function",
  function: { name: "look_up", description: "Looks it up.", parameters: PARAMETERS },
};

async function chunksOf(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

await main({
  async plain() {
    const { data, response } = await client().chat.completions.create(CHAT).withResponse();
    assert.equal(data.choices[0].message.content, WORDS);
    assert.match(response.headers.get("x-byline-adapter"), /^med@/);
  },
  async streamed() {
    const chunks = await chunksOf(client().chat.completions.create({ ...CHAT, stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), WORDS);
  },
  async usage() {
    const { usage } = await client().chat.completions.create(CHAT);
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [3, 6]);
    const asked = { ...CHAT, stream: true, stream_options: { include_usage: true } };
    const chunks = await chunksOf(client().chat.completions.create(asked));
    assert.equal(chunks.at(-1).usage.total_tokens, 9);
  },
  async tools() {
    const answer = await client().chat.completions.create({ ...CHAT, tools: [TOOL] });
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(call.function.name, "look_up");
    assert.deepEqual(JSON.parse(call.function.arguments), { answer: 42 });
  },
  async tools_streamed() {
    const stream = client().chat.completions.stream({ ...CHAT, tools: [TOOL] });
    const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
    assert.equal(call.function.name, "look_up");
    assert.deepEqual(JSON.parse(call.function.arguments), { answer: 42 });
  },
  async json_schema() {
    const schema = { name: "Structured", schema: PARAMETERS, strict: true };
    const response_format = { type: "json_schema", json_schema: schema };
    const answer = await client().chat.completions.create({ ...CHAT, response_format });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), { answer: 42 });
  },
  async unknown_key() {
    const problem = await raised(() => client("byl_wrong").models.list());
    assert.ok(problem instanceof OpenAI.AuthenticationError);
    assert.equal(problem.code, "invalid_api_key");
  },
  async unknown_model() {
    const create = () => client().chat.completions.create({ ...CHAT, model: "nobody" });
    const problem = await raised(create);
    assert.ok(problem instanceof OpenAI.NotFoundError);
    assert.deepEqual([problem.code, problem.param], ["model_not_found", "model"]);
  },
  async bad_value() {
    const problem = await raised(() => client().chat.completions.create({ ...CHAT, n: 99 }));
    assert.ok(problem instanceof OpenAI.BadRequestError);
    assert.equal(problem.param, "n");
  },
  async no_money() {
    const problem = await raised(() => client(POOR_KEY, 2).chat.completions.create(CHAT));
    assert.ok(problem instanceof OpenAI.RateLimitError);
    assert.equal(problem.code, "insufficient_quota");
  },
  async models() {
    const names = (await chunksOf(client().models.list())).map((model) => model.id);
    assert.deepEqual(names, ["tiny", "med", "auto"]);
  },
  async responses() {
    const answer = await client().responses.create({ model: "med", input: QUESTION });
    assert.equal(answer.output_text, WORDS);
  },
  async responses_streamed() {
    const stream = client().responses.stream({ model: "med", input: QUESTION });
    assert.equal((await stream.finalResponse()).output_text, WORDS);
  },
  async broken_stream() {
    const asked = { ...CHAT, stream: true, stand_in: { cut_after: 3 } };
    const problem = await raised(() => chunksOf(client().chat.completions.create(asked)));
    assert.ok(problem instanceof OpenAI.APIError);
    assert.equal(problem.code, "engine_broke");
  },
});
