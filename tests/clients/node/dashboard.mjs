// Prints what a user sees and does on the dashboard, as one JSON document.

import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { drawn, launch, linked, text, until, values } from "./browser.mjs";
import { Relay } from "./relay.mjs";

const { BASE_URL, CONTROL_URL, OPS_URL, SCENARIO, SHOTS, PID, VECHO } = process.env;
const TINY = "tiny";
const TOKEN = "s3cret";

async function embed(input, { model = TINY, headers = {}, extra = {} } = {}) {
  const body = JSON.stringify({ model, input, ...extra });
  const answer = await fetch(`${BASE_URL}/embeddings`, { method: "POST", headers: { "content-type": "application/json", ...headers }, body });
  await answer.arrayBuffer();
  return answer.status;
}

/** Sends requests of several sizes. Every second request repeats texts of the one before. */
async function load(requests, name = "load") {
  for (let number = 0; number < requests; number += 1) {
    const texts = Array.from({ length: 1 + (number % 5) }, (_, index) => `${name} ${Math.floor(number / 2)} ${index}`);
    await embed(texts);
  }
}

async function upstream(behaviour) {
  const answer = await fetch(`${CONTROL_URL}/__control`, { method: "POST", body: JSON.stringify({ always: behaviour }) });
  if (!answer.ok) throw new Error(await answer.text());
}

const ops = async (path) => (await fetch(`${OPS_URL}${path}`)).json();
const stats = () => ops("/api/performance/stats");
const state = async () => (await ops("/api/dashboard")).now;

const shown = async (page) => {
  const ids = ["hit-ratio", "total-requests", "p50", "tokens-saved", "cost-saved"];
  // One evaluation reads them all, so that no update of the page comes between two figures.
  return page.evaluate((all) => Object.fromEntries(all.map((id) => [id, Number(document.getElementById(id).getAttribute("value"))])), ids);
};

/** Waits until the page shows all requests so far. */
async function caughtUp(page) {
  return until("the page to show as many requests as there were", async () => {
    const now = await stats();
    const figures = await shown(page);
    return figures["total-requests"] === now.performance_monitor.total_requests && { stats: now, figures };
  });
}

const charts = async (page) => ({
  sources: await drawn(page, "sources", "memory"),
  upstream: await drawn(page, "sources", "upstream"),
  ratio: await drawn(page, "ratio", "memory"),
  requests: await drawn(page, "requests", "plain"),
  latency: await drawn(page, "latency", "p99"),
  tokens: await drawn(page, "tokens", "memory"),
  memory: await drawn(page, "memory", "plain"),
});

/** Waits until the last load is part of a sample, and returns the charts. */
const moved = (page) => until("the charts to move", async () => {
  const now = await charts(page);
  return !now.sources.flat && !now.requests.flat && now;
});

async function figures({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  const idle = { recent: await text(page, "#recent"), models: await text(page, "#models"), money: await text(page, "#cost-saved"), charts: await charts(page) };
  await load(40);
  for (let round = 0; round < 2; round += 1) await embed(["a text that has a price"], { model: "text-embedding-3-small" });
  const after = await moved(page);
  const caught = await caughtUp(page);
  const texts = { total: await text(page, "#total-requests"), ratio: await text(page, "#hit-ratio"), tokens: await text(page, "#tokens-saved") };
  const tables = { models: await values(page, "#models tbody tr:first-child"), memory: await values(page, '#tiers [data-tier="memory"]') };
  tables.outcomes = await page.locator("#outcomes tbody tr").evaluateAll((rows) =>
    rows.map((row) => ({ name: row.querySelector("th").textContent, figures: [...row.querySelectorAll("data")].map(({ value }) => Number(value)) })));
  return { idle, after, ...caught, texts, tables, batches: await page.locator("#batches title").allTextContents(), recent: await page.locator("#recent tbody tr").count() };
}

async function reload({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  await load(30);
  await moved(page);
  await caughtUp(page);
  const whole = async () => ({ charts: await charts(page), recent: await text(page, "#recent tbody"), now: await shown(page) });
  const before = await whole();
  await page.reload();
  await linked(page, "live");
  return { before, after: await whole() };
}

/** Submits one form of the actions and answers the dialog. */
async function act(page, form, answer) {
  await page.locator(`#${form} button`).first().click();
  await page.waitForSelector("#confirm[open]");
  const asked = await text(page, "#confirm");
  await page.locator(answer === "yes" ? "#confirm-yes" : "#confirm-no").click();
  await page.waitForSelector("#confirm:not([open])", { state: "attached" });
  return asked;
}

const outcome = (page) => text(page, "#action-outcome");

async function actions({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  const changes = [];
  page.on("request", (request) => request.method() !== "GET" && changes.push(`${request.method()} ${new URL(request.url()).search}`));
  await embed(["a", "b", "c"]);
  await embed(["a", "b"], { model: "text-embedding-3-small" });
  const entries = async () => (await stats()).embedding_cache.cache_size;
  const report = { entries: [await entries()] };
  report.cancelled = [];
  for (const form of ["purge", "optimize", "log-level"]) report.cancelled.push(await act(page, form, "no"));
  await page.locator("#purge button").click();
  await page.keyboard.press("Escape");
  await page.waitForSelector("#confirm:not([open])", { state: "attached" });
  report.changes_when_cancelled = [...changes];
  report.entries.push(await entries());

  await page.fill("#purge-model", TINY);
  report.by_model = [await act(page, "purge", "yes"), await outcome(page)];
  report.entries.push(await entries());
  await page.fill("#purge-model", "");
  await page.selectOption("#purge-tier", "memory");
  report.by_tier = [await act(page, "purge", "yes"), await outcome(page)];
  report.entries.push(await entries());
  await embed(["d", "e"]);
  await page.selectOption("#purge-tier", "");
  report.all = [await act(page, "purge", "yes"), await outcome(page)];
  report.entries.push(await entries());

  await page.fill("#optimize-target", "1");
  report.optimize = [await act(page, "optimize", "yes"), await outcome(page)];
  await page.selectOption("#log-level-choice", "debug");
  report.log_level = [await act(page, "log-level", "yes"), await outcome(page), (await state()).log_level];
  report.changes = changes;
  return report;
}

/** A purge that is delayed and then cannot reach a tier. */
async function pending({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await page.route("**/api/performance/cache", async (route) => {
    await held;
    await route.continue();
  });
  await page.locator("#purge button").click();
  await page.locator("#confirm-yes").click();
  await page.keyboard.press("Escape");
  const underWay = { open: await page.locator("#confirm[open]").count(), cancel: await page.locator("#confirm-no").isEnabled() };
  release();
  await page.waitForSelector("#confirm:not([open])", { state: "attached" });
  return { under_way: underWay, told: await outcome(page), level: await page.locator("#action-outcome").getAttribute("data-level") };
}

async function outage({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  await embed("known");
  const calm = { hidden: await page.locator("#banner").isHidden(), title: await page.title() };
  await upstream({ behaviour: "hang_up" });
  // The first one fails by its own call. From the second one on, the upstream counts as unavailable.
  for (let number = 0; number < 5; number += 1) await embed(`unknown ${number}`);
  for (let number = 0; number < 400; number += 1) await embed("known");
  await page.waitForSelector('#banner [data-level="error"]');
  await until("all warnings", async () => (await text(page, "#banner")).includes("breaker"));
  await caughtUp(page);
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
  const inView = await page.locator("#banner .warning").first().evaluate((warning) => warning.getBoundingClientRect().top >= 0);
  // Four mocks are one percent of hundreds of hits.
  const mockHeight = await until("the mocks to be drawn", () => page.locator("#sources path.c-mock").evaluate((path) => path.getBBox().height));
  const sources = await page.locator("#sources svg").getAttribute("aria-label");
  const standIns = await page.locator("#stand-ins .standin-mock").count();
  const incident = await text(page, "#incidents tbody tr");
  const mocks = { figure: Number(await page.locator("#mocks").getAttribute("value")), note: await text(page, "#mocks-note"), level: await page.locator("#mocks-tile").getAttribute("data-level") };
  const upstreamCalls = { facts: await text(page, "#upstream"), calls: await page.locator("#calls svg").getAttribute("aria-label"), times: await page.locator("#call-times svg").getAttribute("aria-label") };
  return { mockHeight, sources, standIns, incident, mocks, upstreamCalls, calm, banner: await text(page, "#banner"), inView, title: await page.title(), breaker: await text(page, "#breaker"), health: await text(page, "#health") };
}

/** The process is killed and sends no final event. */
async function gone({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  await embed("known");
  await page.waitForSelector('#health[data-level="good"]');
  const before = await text(page, "#health");
  process.kill(Number(PID), "SIGKILL");
  await linked(page, "reconnecting");
  return { before, after: await text(page, "#health"), level: await page.locator("#health").getAttribute("data-level"), title: await page.title() };
}

/** Requests that cannot be cached, by reason. */
async function bypassed({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  const none = await text(page, "#bypass");
  for (let number = 0; number < 3; number += 1) await embed("a", { extra: { nobody_knows_it: number } });
  await page.waitForSelector("#bypass tbody tr");
  await until("all of them", async () => (await text(page, "#bypass tbody")).includes("3"));
  return { none, rows: await page.locator("#bypass tbody tr").allTextContents() };
}

/** Several targets, of which one limits the rate. */
async function several({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  for (const text of ["a", "b", "c"]) await embed(text);
  await page.waitForSelector("#targets tbody tr");
  await upstream({ behaviour: "rate_limit", retry_after_ms: 60_000 });
  await embed("d");
  await until("the state to follow", async () => (await text(page, "#targets tbody")).includes("limits the rate"));
  const rows = await page.locator("#targets tbody tr").evaluateAll((all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)));
  return { rows, targets: (await stats()).targets };
}

/** Returns true if the card of targets is hidden. */
async function single({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  await embed("a");
  await caughtUp(page);
  return { targets: await page.locator("#targets-card").isVisible(), limits: await page.locator("#rate-limits-card").isVisible() };
}

/** More calls than the rate limit admits. */
async function limited({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  const row = () => page.locator("#rate-limits tbody tr").evaluate((row) => [...row.cells].map((cell) => cell.textContent));
  await embed("a");
  await embed("b");
  await page.waitForSelector("#rate-limits tbody tr");
  const [, before] = await row();
  const last = embed("c");
  await until("a call to wait", async () => (await row())[1] !== "free");
  const waiting = await row();
  await last;
  await until("it to go", async () => (await row())[1] === "free");
  return { before, waiting };
}

async function hostile({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  const model = '<img src=x onerror="window.hacked=true">';
  const namespace = '"><script>window.hacked=true</script>';
  await embed("a", { model, headers: { "x-vecho-namespace": namespace } });
  await page.waitForSelector("#models tbody tr");
  await page.waitForSelector("#recent tbody tr");
  await page.fill("#purge-model", model);
  const asked = await act(page, "purge", "yes");
  const made = await page.locator("main img, main script").count();
  const offered = await page.locator("#purge-models option").evaluateAll((all) => all.map(({ value }) => value));
  return {
    model, namespace, made, offered, asked, outcome: await outcome(page),
    models: await text(page, "#models tbody"), recent: await text(page, "#recent tbody"),
    hacked: await page.evaluate(() => window.hacked ?? null),
  };
}

async function token({ open }) {
  await embed("a");
  const page = await open(OPS_URL.replace("127.0.0.1", "vecho.test"));
  await linked(page, "locked");
  const enter = async (value) => {
    await page.fill("#token-value", value);
    await page.locator("#token button").first().click();
  };
  const locked = { seen: await text(page, "#locked"), requests: await text(page, "#total-requests") };
  await act(page, "purge", "yes");
  const refused = { said: await outcome(page), focus: await page.evaluate(() => document.activeElement.id) };
  await enter("wrong");
  await linked(page, "refused");
  await enter(TOKEN);
  await linked(page, "live");
  await act(page, "purge", "yes");
  const done = await outcome(page);
  const kept = await page.evaluate((secret) => JSON.stringify({ ...localStorage, ...sessionStorage, cookie: document.cookie, html: document.documentElement.outerHTML }).includes(secret), TOKEN);
  await page.reload();
  await linked(page, "locked");
  return { locked, refused, done, kept };
}

/** Starts another process on the ops port of the one that has exited. It is killed when this script exits. */
function startAgain() {
  const flags = ["--listen", "127.0.0.1:0", "--admin-listen", new URL(OPS_URL).host, "--upstream", "mock:"];
  const next = spawn(VECHO, flags, { env: { VECHO_DISK_ENABLED: "false" }, stdio: "ignore" });
  process.on("exit", () => next.kill("SIGKILL"));
  return next;
}

async function restart({ open }) {
  const relay = await Relay.start(OPS_URL);
  const page = await open(relay.url);
  await linked(page, "live");
  await load(20);
  await moved(page);
  const before = await charts(page);
  relay.cut();
  await linked(page, "reconnecting");
  // The opacity changes by a transition, so this takes a moment.
  const dims = () => page.locator(".tiles").evaluate((tiles) => Number(getComputedStyle(tiles).opacity) < 1);
  const dimmed = await until("what is not of now to look so", dims);
  relay.to(OPS_URL);
  await linked(page, "live");
  // A request in flight keeps the process draining until the page receives the event.
  await upstream({ behaviour: "delay", ms: 6000 });
  const slow = embed("slow").catch(() => null);
  await until("the slow request to arrive", async () => (await state()).upstream.in_flight === 1);
  process.kill(Number(PID), "SIGTERM");
  await page.waitForSelector('body:is([data-link="draining"], [data-link="drained"])', { timeout: 20_000 });
  await slow;
  await linked(page, "drained");
  const next = startAgain();
  await linked(page, "live");
  const after = await charts(page);
  next.kill("SIGKILL");
  await relay.stop();
  return { dimmed, before, after };
}

async function keyboard({ open }) {
  const page = await open(OPS_URL);
  await linked(page, "live");
  await load(20);
  await moved(page);
  await page.locator("#sources .plot").focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  const read = await text(page, "#spoken");
  const moment = await text(page, "#moment");
  const crossed = await page.locator(".cross").evaluateAll((all) => all.filter((cross) => cross.getAttribute("d")).length);
  await page.keyboard.press("Escape");
  const cleared = await text(page, "#moment");
  // Every interactive element must have a name and be reachable by keyboard.
  const nameless = await page.locator("button, a[href], input, select, svg, [tabindex='0']").evaluateAll((all) =>
    all.filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length || node.closest("[aria-hidden], dialog:not([open])"))).map(({ outerHTML }) => outerHTML));
  await page.locator("#purge button").focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("#confirm[open]");
  const focus = await page.evaluate(() => document.activeElement.id);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#confirm:not([open])", { state: "attached" });
  return { read, moment, crossed, cleared, nameless, focus, charts: await page.locator(".plot").count() };
}

/** Takes a screenshot of each page in each theme, and reports the effects of theme and width. */
async function shots(pages, name) {
  const report = [];
  for (const page of pages) {
    await caughtUp(page);
    const { width } = page.viewportSize();
    for (const theme of ["dark", "light"]) {
      await page.emulateMedia({ colorScheme: theme });
      const [ground, beyond] = await page.evaluate(() => {
        const { scrollWidth, clientWidth } = document.documentElement;
        return [getComputedStyle(document.body).backgroundColor, scrollWidth - clientWidth];
      });
      const image = await page.screenshot({ path: `${SHOTS}/${name}-${theme}-${width}.png`, fullPage: true });
      report.push({ name, theme, width, ground, beyond, bytes: image.length });
    }
  }
  return report;
}

async function looks({ open }) {
  await mkdir(SHOTS, { recursive: true });
  const sizes = [{ width: 1440, height: 900 }, { width: 360, height: 740 }];
  const pages = await Promise.all(sizes.map((viewport) => open(OPS_URL, { viewport, reducedMotion: "reduce" })));
  const [page] = pages;
  for (const each of pages) await linked(each, "live");
  const report = await shots(pages, "idle");
  const long = "a-model-with-a-name-that-goes-on-and-on-and-says-nothing-more";
  await embed("a", { model: long, headers: { "x-vecho-namespace": "n".repeat(200) } });
  for (let round = 0; round < 3; round += 1) {
    await load(30, `round ${round}`);
    await embed(["x", "y"], { model: "text-embedding-3-small" });
    await caughtUp(page);
  }
  await moved(page);
  report.push(...(await shots(pages, "load")));
  await upstream({ behaviour: "status", code: 503 });
  for (let number = 0; number < 12; number += 1) await embed(["known", `lost ${number}`]);
  await page.waitForSelector('#banner [data-level="error"]');
  report.push(...(await shots(pages, "outage")));
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const themes = [await ground()];
  for (const _ of ["light", "dark"]) await page.locator("#theme").click();
  themes.push(await ground());
  await page.reload();
  await linked(page, "live");
  themes.push(await ground());
  return { report, themes };
}

const scenarios = { figures, reload, actions, pending, outage, gone, bypassed, several, single, limited, hostile, token, restart, keyboard, looks };
const browser = await launch();
const report = await scenarios[SCENARIO](browser);
await browser.close();
process.stdout.write(JSON.stringify({ ...report, complaints: browser.complaints, elsewhere: browser.elsewhere }));
