// Asks the gateway with the AI SDK and its provider for servers that speak OpenAI's API.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, jsonSchema, streamText, tool } from "ai";
import { API_KEY, BASE_URL, PARAMETERS, POOR_KEY, QUESTION, WORDS, main, raised } from "./said.mjs";

function asked(name = "med", apiKey = API_KEY, more = {}) {
  const provider = createOpenAICompatible({
    name: "byline",
    baseURL: BASE_URL,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
  return { model: provider(name), prompt: QUESTION, maxRetries: 0, ...more };
}

const tools = {
  look_up: tool({ description: "Looks it up.", inputSchema: jsonSchema(PARAMETERS) }),
};

async function refusal(options) {
  const problem = await raised(() => generateText(options));
  assert.ok(APICallError.isInstance(problem), String(problem));
  const { code, param, type } = JSON.parse(problem.responseBody).error;
  return { status: problem.statusCode, code, param, type };
}

await main({
  async plain() {
    assert.equal((await generateText(asked())).text, WORDS);
  },
  async streamed() {
    const pieces = [];
    for await (const piece of streamText(asked()).textStream) pieces.push(piece);
    assert.equal(pieces.join(""), WORDS);
    assert.equal(pieces.length, 6);
  },
  async usage() {
    const { usage } = await generateText(asked());
    assert.deepEqual([usage.inputTokens, usage.outputTokens], [3, 6]);
    const streamed = await streamText(asked()).usage;
    assert.deepEqual([streamed.inputTokens, streamed.outputTokens], [3, 6]);
  },
  async tools() {
    const [call] = (await generateText(asked("med", API_KEY, { tools }))).toolCalls;
    assert.deepEqual([call.toolName, call.input], ["look_up", { answer: 42 }]);
  },
  async tools_streamed() {
    const [call] = await streamText(asked("med", API_KEY, { tools })).toolCalls;
    assert.deepEqual([call.toolName, call.input], ["look_up", { answer: 42 }]);
  },
  async json_schema() {
    const output = Output.object({ schema: jsonSchema(PARAMETERS), name: "Structured" });
    const answer = await generateText(asked("med", API_KEY, { output }));
    assert.deepEqual(answer.output, { answer: 42 });
  },
  async unknown_key() {
    const { status, code } = await refusal(asked("med", "byl_wrong"));
    assert.deepEqual([status, code], [401, "invalid_api_key"]);
  },
  async unknown_model() {
    const { status, code, param } = await refusal(asked("nobody"));
    assert.deepEqual([status, code, param], [404, "model_not_found", "model"]);
  },
  async bad_value() {
    const providerOptions = { byline: { n: 99 } };
    const { status, param } = await refusal(asked("med", API_KEY, { providerOptions }));
    assert.deepEqual([status, param], [400, "n"]);
  },
  async no_money() {
    const { status, code } = await refusal(asked("med", POOR_KEY));
    assert.deepEqual([status, code], [429, "insufficient_quota"]);
  },
});
