// What both scripts have in common: what is asked, and how they say what came of it.
import assert from "node:assert/strict";

export const { BASE_URL, API_KEY, POOR_KEY } = process.env;
export const WORDS = " w100 w101 w102 w103 w104 w105";
export const QUESTION = "What helps?";
export const PARAMETERS = {
  type: "object",
  properties: { answer: { type: "integer" } },
  required: ["answer"],
  additionalProperties: false,
};

// The error that an action ends with; the assertion fails where there is none.
export async function raised(action) {
  try {
    await action();
  } catch (problem) {
    return problem;
  }
  assert.fail("nothing was raised");
}

// Runs all checks; prints one JSON object: "passed" or what went wrong, by name.
export async function main(checks) {
  const said = {};
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      said[name] = "passed";
    } catch (problem) {
      said[name] = String(problem.stack ?? problem).slice(0, 3000);
    }
  }
  process.stdout.write(JSON.stringify(said));
}
