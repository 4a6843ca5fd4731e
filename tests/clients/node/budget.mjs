// Prints how the openai package for Node reports a refusal of a budget, and how long that takes.

import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "sk-test", timeout: 30_000, maxRetries: 2 });
const begun = performance.now();
let report = { class: "answered" };
try {
  const input = "some words that no budget covers";
  await client.embeddings.create({ model: "text-embedding-3-small", input, dimensions: 8 });
} catch (error) {
  const { status, code, type } = error;
  report = { class: error.constructor.name, status, code, type };
}
console.log(JSON.stringify({ ...report, seconds: (performance.now() - begun) / 1000 }));
