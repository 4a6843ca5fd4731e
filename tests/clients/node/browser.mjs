// A headless Chromium that opens the dashboard and records all errors of the page.

import { execFileSync } from "node:child_process";
import { chromium } from "playwright-core";

const DEADLINE_MS = 30_000;
const PAUSE_MS = 50;
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // A name that does not belong to this machine, to open the page as from another host. No other name resolves.
  "--host-resolver-rules=MAP vecho.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/** Returns the path of Chromium, or throws an error that names the setup script. */
function program() {
  try {
    return execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
  } catch {
    throw new Error("chromium is missing: run `bash scripts/setup-tests`");
  }
}

/** Waits until `condition` returns a truthy value, and returns that value. */
export async function until(what, condition) {
  for (const end = Date.now() + DEADLINE_MS; ; ) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Starts a browser. `complaints` collects errors of its pages, `elsewhere` requests to other hosts. */
export async function launch() {
  // Playwright creates a new folder with user data for each launch.
  const browser = await chromium.launch({ executablePath: program(), headless: true, args: FLAGS });
  const [complaints, elsewhere] = [[], []];
  const open = async (url, options = {}) => {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
    const page = await context.newPage();
    await watch(page, new URL(url).origin, { complaints, elsewhere });
    await page.goto(url);
    return page;
  };
  return { open, complaints, elsewhere, close: () => browser.close() };
}

async function watch(page, origin, { complaints, elsewhere }) {
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error.stack)));
  page.on("request", (request) => new URL(request.url()).origin !== origin && elsewhere.push(request.url()));
  await page.exposeFunction("complain", (text) => complaints.push(text));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
      window.complain(`policy: ${violatedDirective} ${blockedURI}`));
  });
}

/** Waits until the page shows this state of its connection. */
export const linked = (page, link) => page.waitForSelector(`body[data-link="${link}"]`, { timeout: DEADLINE_MS });

export const text = (page, selector) => page.locator(selector).innerText();

/** Returns the machine-readable values of all figures below `selector`, in order. */
export const values = (page, selector) =>
  page.locator(`${selector} data`).evaluateAll((all) => all.map(({ value }) => Number(value)));

/** Returns the number of points of a chart's line or upper edge. `flat` is true if all have the same height. */
export const drawn = (page, chart, series) =>
  page.locator(`#${chart} path.c-${series}`).evaluate((path) => {
    const levels = [...(path.getAttribute("d") ?? "").matchAll(/[ML][-\d.]+ ([-\d.]+)/g)].map(([, y]) => Number(y));
    return { path: path.getAttribute("d"), points: levels.length, flat: new Set(levels).size < 2 };
  });
