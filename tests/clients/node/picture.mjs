// Renders the picture of the dashboard that README shows: the top of the page while an indexing job runs.

import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { launch, linked, until } from "./browser.mjs";

const { BASE_URL, OPS_URL, PICTURE, REQUESTS } = process.env;
const MODEL = "text-embedding-3-large";
const TEXTS = 4_000;
const PAUSE_MS = 4;
/** Requests that are sent while the picture is taken. */
const MORE = 40;

/** Returns a generator of numbers from 0 to 1 that repeats with each run (mulberry32). */
function numbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Sends requests whose texts repeat as in a re-indexing job: a few often, most rarely. */
async function job(requests, next) {
  for (let number = 0; number < requests; number += 1) {
    const input = Array.from({ length: 1 + Math.floor(next() * 8) }, () => {
      const text = Math.floor(TEXTS * next() ** 3);
      return `Paragraph ${text} of the handbook, which is long enough to have a price worth saving.`;
    });
    const body = JSON.stringify({ model: MODEL, input });
    const answer = await fetch(`${BASE_URL}/embeddings`, { method: "POST", headers: { "content-type": "application/json" }, body });
    if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
    await answer.arrayBuffer();
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

const browser = await launch();
const page = await browser.open(OPS_URL, { viewport: { width: 1440, height: 860 }, colorScheme: "light", reducedMotion: "reduce" });
await linked(page, "live");
const next = numbers(7);
await job(Number(REQUESTS), next);
await mkdir(dirname(PICTURE), { recursive: true });
// The job goes on meanwhile, so that no chart ends in a half sample of an idle server.
const [image] = await Promise.all([page.screenshot({ path: PICTURE }), job(MORE, next)]);
const total = Number(REQUESTS) + MORE;
const shown = await until("the page to show all requests", async () => {
  const requests = Number(await page.locator("#total-requests").getAttribute("value"));
  return requests === total && requests;
});
await browser.close();
const { complaints, elsewhere } = browser;
process.stdout.write(JSON.stringify({ shown, total, bytes: image.length, complaints, elsewhere }));
