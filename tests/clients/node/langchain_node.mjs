// Prints the results of LangChain.js's OpenAIEmbeddings in an application, as one JSON document.

import { OpenAIEmbeddings } from "@langchain/openai";

import { BASE_URL, KEY, SMALL, TINY, twoRounds } from "./common.mjs";

const DOCUMENTS = ["one", "two", "one", "a longer document"];

function embeddings({ apiKey = KEY, ...settings }) {
  return new OpenAIEmbeddings({ apiKey, configuration: { baseURL: BASE_URL }, timeout: 30_000, ...settings });
}

async function cacheable() {
  return {
    documents: { vectors: await embeddings({ model: TINY }).embedDocuments(DOCUMENTS) },
    parallel: await embeddings({ model: TINY, batchSize: 1 }).embedDocuments(DOCUMENTS),
    query: await embeddings({ model: SMALL }).embedQuery("two"),
    floats: await embeddings({ model: SMALL, encodingFormat: "float" }).embedDocuments(DOCUMENTS),
    dimensions: await embeddings({ model: SMALL, dimensions: 64 }).embedDocuments(DOCUMENTS),
  };
}

async function rest() {
  return { wrong_key: await wrongKey() };
}

async function wrongKey() {
  try {
    await embeddings({ model: SMALL, apiKey: "sk-wrong", maxRetries: 0 }).embedQuery("two");
    return "answered";
  } catch (error) {
    const { status, code, message } = error;
    return { class: error.constructor.name, status, code, message, body: error.error };
  }
}

await twoRounds(cacheable, rest);
