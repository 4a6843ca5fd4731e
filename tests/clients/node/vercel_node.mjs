// Prints the results of the Vercel AI SDK in an application, as one JSON document.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, embedMany } from "ai";

import { BASE_URL, KEY, SMALL, TINY, failNext, twoRounds } from "./common.mjs";

const DOCUMENTS = ["one", "two", "one", "a longer document"];
const openai = createOpenAI({ baseURL: BASE_URL, apiKey: KEY });
const compatible = createOpenAICompatible({ name: "local", baseURL: BASE_URL, apiKey: KEY });

async function many(model, providerOptions) {
  const { embeddings, usage } = await embedMany({ model, values: DOCUMENTS, providerOptions });
  return { vectors: embeddings, usage };
}

async function one(model, value, providerOptions) {
  const { embedding, usage } = await embed({ model, value, providerOptions });
  return { vectors: [embedding], usage };
}

async function refused(model, value) {
  try {
    await embed({ model, value, maxRetries: 0 });
    return "answered";
  } catch (error) {
    const { name, message, statusCode, responseBody } = error;
    return { class: name, status: statusCode, message, body: responseBody };
  }
}

async function cacheable() {
  return {
    documents: await many(compatible.embeddingModel(TINY)),
    query: await one(compatible.embeddingModel(TINY), "two"),
    openai: await many(openai.embeddingModel(SMALL)),
    openai_query: await one(openai.embeddingModel(SMALL), "two"),
    dimensions: await many(openai.embeddingModel(SMALL), { openai: { dimensions: 64, user: "u-1" } }),
    compatible_dimensions: await one(compatible.embeddingModel(SMALL), "two", { local: { dimensions: 64 } }),
  };
}

async function rest(round) {
  await failNext({ behaviour: "rate_limit", retry_after_ms: 20 });
  const recovered = await one(compatible.embeddingModel(TINY), `after the limit ${round}`);
  const wrong = createOpenAI({ baseURL: BASE_URL, apiKey: "sk-wrong" });
  return {
    recovered,
    wrong_key: await refused(wrong.embeddingModel(SMALL), "one"),
    empty_text: await refused(compatible.embeddingModel(TINY), ""),
  };
}

await twoRounds(cacheable, rest);
