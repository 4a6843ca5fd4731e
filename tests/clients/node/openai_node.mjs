// Prints the results of the openai package for Node in an application, as one JSON document.

import OpenAI from "openai";

import { BASE_URL, KEY, SMALL, TINY, failNext, twoRounds } from "./common.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, timeout: 30_000 });

async function embed(fields) {
  const { object, model, data, usage } = await client.embeddings.create(fields);
  const items = data.map(({ object, index, embedding }) => ({ object, index, embedding }));
  return { object, model, items, usage };
}

async function refused(fields, options = {}) {
  try {
    await client.withOptions({ maxRetries: 0, ...options }).embeddings.create(fields);
    return "answered";
  } catch (error) {
    const { status, code, type, param, message } = error;
    return { class: error.constructor.name, status, code, type, param, message, body: error.error };
  }
}

async function cacheable() {
  return {
    single: await embed({ model: SMALL, input: "a gateway that remembers" }),
    batch: await embed({ model: TINY, input: ["one", "two", "three"] }),
    duplicates: await embed({ model: TINY, input: ["x", "y", "x"] }),
    floats: await embed({ model: SMALL, input: "one", encoding_format: "float" }),
    base64: await embed({ model: TINY, input: "one", encoding_format: "base64" }),
    dimensions: await embed({ model: SMALL, input: "one", dimensions: 256 }),
    token_lists: await embed({ model: TINY, input: [[1, 2, 3], [4, 5]] }),
    token_list: await embed({ model: TINY, input: [1, 2, 3] }),
    user: await embed({ input: "one", user: "u-1", model: TINY }),
    unicode: await embed({ model: TINY, input: ["h\u00e9llo \u{1f600}", "tab\tquote\" \\ / < > &", "\u2028 and \u0000", "   "] }),
  };
}

async function errors() {
  return {
    empty_in_list: await refused({ model: TINY, input: ["a", ""] }),
    wrong_key: await refused({ model: TINY, input: "one" }, { apiKey: "sk-wrong" }),
    missing_model: await refused({ model: "missing-1", input: "one" }),
    no_dimensions: await refused({ model: "text-embedding-ada-002", input: "one", dimensions: 8 }),
  };
}

async function recovered(round) {
  await failNext({ behaviour: "rate_limit", retry_after_ms: 20 });
  const rate_limit = await embed({ model: TINY, input: `after the limit ${round}` });
  await failNext({ behaviour: "hang_up" });
  return { rate_limit, hang_up: await embed({ model: TINY, input: `after the cut ${round}` }) };
}

async function passed() {
  const messages = [{ role: "user", content: "Say hello" }];
  const stream = [];
  for await (const chunk of await client.chat.completions.create({ model: "gpt-stub", messages, stream: true })) {
    stream.push(chunk.choices[0].delta.content);
  }
  const chat = await client.chat.completions.create({ model: "gpt-stub", messages });
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  return {
    stream,
    chat: chat.choices[0].message.content,
    models,
    // Half of a surrogate pair is legal in JSON and illegal in UTF-8. Applications that cut strings send it.
    lone_surrogate: await embed({ model: TINY, input: "cut here \ud83d" }),
  };
}

async function rest(round) {
  return { errors: await errors(), recovered: await recovered(round), passed: await passed() };
}

await twoRounds(cacheable, rest);
