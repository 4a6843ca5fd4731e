// Panels of the current state: outcomes, the upstream, batches, memory, tiers, models, recent requests.

import { Meter, bars, range, strip } from "./bars.js";
import { byId, cell, element, empty, figure, table, write } from "./dom.js";
import { bytes, compact, count, millis, money, number, percent, price, tight, time } from "./format.js";

const OUTCOMES = ["hit", "partial", "miss", "stale", "mock", "bypass", "forwarded"];
const BREAKER = { closed: "good", "half-open": "warn", open: "error" };

const drawn = new Map();

/** Returns true if a panel's data is unchanged. It is then not redrawn, which keeps the user's text selection. */
function same(panel, ...shown) {
  const now = JSON.stringify(shown);
  if (drawn.get(panel) === now) return true;
  drawn.set(panel, now);
  return false;
}

/** Shows a table if there are rows, otherwise a text. */
function fillTable(host, made, rows, words) {
  if (!rows.length) host.replaceChildren(empty(words));
  else {
    made.body.replaceChildren(...rows);
    if (made.host.parentNode !== host) host.replaceChildren(made.host);
  }
}

const outcomeTable = table("Response time by outcome", [["outcome"], ["requests", "n"], ["p50", "n"], ["p95", "n"], ["p99", "n"], ["p50 – p99", "wide"]]);

export function outcomes({ stats }) {
  if (same("outcomes", stats.latency_ms)) return;
  const seen = Object.entries(stats.latency_ms ?? {}).filter(([, { count }]) => count > 0);
  seen.sort(([one], [other]) => OUTCOMES.indexOf(one) - OUTCOMES.indexOf(other));
  const rows = seen.map(([name, times]) => element("tr", {},
    element("th", { scope: "row" }, chip(name)),
    cell("n", figure(times.count, compact(times.count), number(times.count))),
    ...["p50", "p95", "p99"].map((key) => cell("n", figure(times[key], millis(times[key])))),
    cell("wide", range(times, name))));
  fillTable(byId("outcomes"), outcomeTable, rows, "No requests yet");
}

const chip = (outcome) => element("span", { class: `chip c-${outcome}` }, outcome);

function fact(name, ...value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, ...value));
}

const callWord = ([name, calls]) => element("span", { class: "pair" }, `${name} `, figure(calls, compact(calls), number(calls)));

export function upstream(now, window) {
  const { url, breaker, in_flight, queued_inputs, calls, latency_ms: times, retries, mean_inputs_per_call: mean } = now.upstream;
  const made = Object.entries(calls ?? {}).filter(([, number]) => number > 0);
  const facts = [
    fact("Breaker", element("span", { class: "pill", id: "breaker", "data-level": BREAKER[breaker] ?? "none" }, breaker)),
    fact("Under way", count(in_flight, "call", "calls")),
    fact("Queued", count(queued_inputs, "input", "inputs")),
    fact("Calls", ...(made.length ? made.map(callWord) : ["none yet"])),
    fact("Time of a call", times?.count ? `median ${millis(times.p50)} · p95 ${millis(times.p95)} · p99 ${millis(times.p99)}` : "–"),
    fact("Repeated", number(retries)),
    fact("Inputs in a call", made.length ? `${number(mean)} on average` : "–"),
    fact("If unavailable", fallback(now.fallback_mode)),
  ];
  byId("upstream").replaceChildren(
    element("p", { class: "address", title: url }, url),
    element("dl", { class: "facts" }, ...facts),
    strip(`Breaker over time, now ${breaker}`, window, (sample) => `breaker-${sample.breaker}`),
    element("p", { class: "small" }, "the breaker over the time shown above"));
}

/** Draws a strip of the times with mocks or stale entries, so that even a few inputs are visible. */
export function standIns(window) {
  const of = ({ inputs }) => (inputs?.mock ? "standin-mock" : inputs?.stale ? "standin-stale" : null);
  const states = new Set(window.samples.map(of));
  const words = states.has("standin-mock") ? "mocks in this time" : states.has("standin-stale") ? "stale entries in this time" : "no mocks and no stale entries in this time";
  byId("stand-ins").replaceChildren(
    strip(`Mocks and stale entries over time: ${words}`, window, of, 0.8),
    element("p", { class: "small" }, `mocks (red) and stale entries (amber), whatever their share: ${words}`));
}

const incidentTable = table("Incidents of the upstream", [["from"], ["to"], ["cause"], ["models"], ["mock inputs", "n"], ["stale inputs", "n"], ["failed requests", "n"], ["embed again"]]);

export function incidents({ incidents: found = [] }) {
  if (same("incidents", found)) return;
  byId("incidents-card").hidden = !found.length;
  const day = (at) => `${at.slice(0, 10)} ${time(Date.parse(at))}`;
  const rows = found.map((incident) => element("tr", { "data-active": String(incident.active) },
    element("th", { scope: "row" }, element("span", { class: "dotted", "data-level": incident.active ? "error" : "none" }, day(incident.from))),
    cell("", incident.to ? day(incident.to) : "goes on"),
    element("td", { class: "cause", title: incident.cause }, incident.cause),
    cell("name", incident.models.map(({ model }) => model).join(", ")),
    ...["mock_inputs", "stale_inputs", "failed_requests"].map((key) => cell(key === "mock_inputs" && incident[key] ? "n bad" : "n", figure(incident[key], compact(incident[key]), number(incident[key])))),
    cell("", again(incident.embed_again))));
  fillTable(byId("incidents"), incidentTable, rows, "No incident since the start");
}

const again = (affected) => (affected ? `${count(affected.inputs, "input", "inputs")}, ${time(Date.parse(affected.from))} to ${time(Date.parse(affected.to))}` : "nothing");

const BYPASSES = {
  not_json: "the body is no JSON", unknown_field: "a field that nobody knows", wrong_type: "a field of another type", empty_input: "an empty input",
  no_input: "no input", content_type: "no JSON by its content type", content_encoding: "a compressed body", unreadable_answer: "an answer that cannot be read",
  lone_surrogate: "half of a surrogate pair", duplicate_key: "a field that occurs twice", unsteady_model: "the model kept changing", too_many_inputs: "too many inputs",
};
const bypassTable = table("Requests that were not cached", [["reason"], ["meaning"], ["requests", "n"]]);

export function bypasses({ bypass = {} }) {
  if (same("bypass", bypass)) return;
  const seen = Object.entries(bypass).filter(([, times]) => times > 0).sort(([, one], [, other]) => other - one);
  const rows = seen.map(([reason, times]) => element("tr", {},
    element("th", { scope: "row" }, reason), cell("", BYPASSES[reason] ?? ""), cell("n", figure(times, compact(times), number(times)))));
  fillTable(byId("bypass"), bypassTable, rows, "Every embeddings request could be cached");
}

const FALLBACKS = { mock: "stale entries, then mocks", stale: "stale entries, then an error", error: "an error" };
const fallback = (mode) => FALLBACKS[mode] ?? mode;

export function batches({ upstream: { batch_sizes: sizes = [] } }) {
  if (same("batches", sizes)) return;
  const items = sizes.map(({ le, calls }, index) => ({
    label: le === null ? "more" : tight(le),
    name: `${between(sizes[index - 1]?.le, le)} inputs`,
    value: calls,
  }));
  const shape = items.some(({ value }) => value) ? bars("Upstream calls by inputs carried", items, "calls") : empty("No upstream calls yet");
  byId("batches").replaceChildren(shape);
}

function between(below = 0, le) {
  if (le === null) return `> ${below}`;
  return le - below <= 1 ? String(le) : `${below + 1}–${le}`;
}

const ACTIONS = { trim: "trimmed", shrink: "shrunk", optimize: "optimized" };

export class MemoryPanel {
  #meter = new Meter("Resident", [[0.8, "80 %: freed memory is given back"], [0.85, "85 %: entries are dropped"]]);
  #note = element("p", { class: "small" });
  #chart = element("div");

  constructor() {
    byId("memory").replaceChildren(this.#meter.host, this.#chart, this.#note);
  }

  get chart() {
    return this.#chart;
  }

  show({ memory: { resident_bytes: resident, limit_bytes: limit, actions }, stats }) {
    const share = limit ? resident / limit : 0;
    this.#meter.show(share, `${bytes(resident)} of ${bytes(limit)}`, share > 0.85 ? "error" : share > 0.8 ? "warn" : "good");
    const done = Object.entries(actions ?? {}).filter(([, times]) => times).map(([name, times]) => `${ACTIONS[name] ?? name} ${number(times)} ×`);
    const machine = `machine: ${stats.system_info.memory_percent} % in use, ${stats.system_info.cpu_count} CPUs`;
    write(this.#note, [...done, machine].join(" · "));
  }
}

const tierTable = table("Tiers", [["tier"], ["of its bound", "wide"], ["entries", "n"], ["hits", "n"], ["misses", "n"], ["evicted", "n"], ["not written", "n"]]);

export function tiers({ stats }) {
  if (same("tiers", stats.embedding_cache.tiers)) return;
  const rows = Object.entries(stats.embedding_cache.tiers ?? {}).map(([name, tier]) => {
    const meter = new Meter(name);
    const bound = tier.capacity_bytes ? `${bytes(tier.bytes)} of ${bytes(tier.capacity_bytes)}` : "no bound here";
    meter.show(tier.capacity_bytes ? tier.bytes / tier.capacity_bytes : 0, bound, "good");
    return element("tr", { "data-tier": name },
      element("th", { scope: "row" }, element("span", { class: "dotted", "data-level": tier.up ? "good" : "error" }, tier.up ? name : `${name}: down`)),
      cell("wide", meter.host),
      ...["entries", "hits", "misses", "evictions", "dropped"].map((key) => cell("n", figure(tier[key], compact(tier[key]), number(tier[key])))));
  });
  fillTable(byId("tiers"), tierTable, rows, "No tiers");
}

const targetTable = table("Targets", [["target"], ["state"], ["of all calls", "wide"], ["calls", "n"], ["failures", "n"], ["moved on", "n more"], ["other vectors for"]]);
const TARGET_LEVELS = { "serves": "good", "not yet compared": "none", "gives other vectors": "error", "breaker open": "error" };

/** Shows the calls and the state of each target, if there are several. */
export function targets({ stats }) {
  if (same("targets", stats.targets)) return;
  const found = stats.targets ?? [];
  byId("targets-card").hidden = !found.length;
  const rows = found.map((target) => {
    const meter = new Meter(target.name);
    meter.show(target.share, target.calls ? percent(target.share) : "–", "good");
    return element("tr", { "data-target": target.name },
      element("th", { scope: "row" }, target.name),
      cell("", element("span", { class: "dotted", "data-level": TARGET_LEVELS[target.state] ?? "warn" }, target.state)),
      cell("wide", meter.host),
      ...[["calls", "n"], ["failures", target.failures ? "n bad" : "n"], ["moves", "n more"]].map(([key, kind]) =>
        cell(kind, figure(target[key], compact(target[key]), number(target[key])))),
      cell("name", target.disagrees_for.join(", ") || "–"));
  });
  fillTable(byId("targets"), targetTable, rows, "No targets");
}

const limitTable = table("Rate limits", [["model"], ["calls"], ["requests", "n"], ["tokens", "n"], ["interactive waiting", "n"], ["bulk waiting", "n"], ["under way", "n more"]]);

/** Shows rate limits that are known and calls that wait for them, if there are any. */
export function rateLimits({ stats }) {
  if (same("limits", stats.rate_limits)) return;
  const found = (stats.rate_limits ?? []).filter(({ requests, tokens, found_per_minute: rate, status }) => requests || tokens || rate || status !== "free");
  byId("rate-limits-card").hidden = !found.length;
  const rows = found.map(({ target, model, status, requests, tokens, found_per_minute: rate, held_seconds: held, waiting, in_flight: calls }) =>
    element("tr", { "data-model": model },
      element("th", { scope: "row" }, target ? `${model} at ${target}` : model),
      cell("", element("span", { class: "dotted", "data-level": status === "free" ? "good" : "warn" }, held ? `${status}, ${number(held)}\u00a0s to go` : status)),
      cell("n", left(requests) ?? (rate ? `about ${compact(rate)} a minute` : "–")),
      cell("n", left(tokens) ?? "–"),
      ...[["n", waiting.interactive], ["n", waiting.bulk], ["n more", calls]].map(([kind, value]) => cell(kind, figure(value, compact(value), number(value))))));
  fillTable(byId("rate-limits"), limitTable, rows, "No rate limits");
}

const left = (limit) => limit && `${compact(Math.max(0, Math.floor(limit.left)))} left of ${compact(limit.per_minute)} a minute`;

const modelTable = table("Models and namespaces", [["model"], ["namespace"], ["inputs", "n"], ["requests", "n more"], ["tokens billed", "n more"], ["tokens saved", "n"], ["saved", "wide"], ["billed", "n more"], ["money saved", "n"], ["per million", "n more"]]);

export function models({ stats: { savings } }) {
  if (same("models", savings)) return;
  const sum = (value, format) => {
    if (value === null || value === undefined) return element("span", { class: "faint", title: "savings.prices names no price for this model" }, "no price");
    return figure(value, format(value, savings.currency), `${value} ${savings.currency}`);
  };
  const rows = savings.models.map((model) => {
    const tokens = model.tokens_billed + model.tokens_saved;
    const meter = new Meter("saved");
    meter.show(tokens ? model.tokens_saved / tokens : 0, tokens ? percent(model.tokens_saved / tokens) : "–", "good");
    return element("tr", {},
      element("th", { scope: "row", class: "name", title: model.model }, model.model),
      cell("name", model.namespace || element("span", { class: "faint" }, "none")),
      ...[["inputs", "n"], ["requests", "n more"], ["tokens_billed", "n more"], ["tokens_saved", "n"]].map(([key, kind]) =>
        cell(kind, figure(model[key], compact(model[key]), number(model[key])))),
      cell("wide", meter.host),
      cell("n more", sum(model.cost_billed, money)),
      cell("n", sum(model.cost_saved, money)),
      cell("n more", sum(model.price_per_million_tokens, price)));
  });
  fillTable(byId("models"), modelTable, rows, "No model has been asked for yet");
}

const budgetTable = table("Budgets of this day", [["budget"], ["namespace"], ["spent", "wide"], ["left", "n"], ["limit", "n"], ["refused", "n"]]);

/** Shows what is left of each budget, and when they are filled again. */
export function budgets({ stats: { savings } }) {
  if (same("budgets", savings.budgets, savings.currency)) return;
  const found = savings.budgets?.list ?? [];
  byId("budgets-card").hidden = !found.length;
  write(byId("budgets-note"), found.length ? `filled again at ${time(Date.parse(savings.budgets.resets_at))}` : "");
  const rows = found.map((budget) => {
    const isMoney = budget.key.includes("money");
    const amount = (value) => (isMoney ? figure(value, money(value, savings.currency), `${value} ${savings.currency}`) : figure(value, compact(value), number(value)));
    const share = budget.spent / budget.limit;
    const meter = new Meter(budget.key, [[0.8, "80 %: the log says so"]]);
    meter.show(Math.min(share, 1), percent(Math.min(share, 1)), share >= 1 || budget.refused ? "error" : share >= 0.8 ? "warn" : "good");
    return element("tr", {},
      element("th", { scope: "row" }, budget.key),
      cell("name", budget.namespace || element("span", { class: "faint" }, "all")),
      cell("wide", meter.host),
      cell("n", amount(budget.left)),
      cell("n", amount(budget.limit)),
      cell(budget.refused ? "n bad" : "n", figure(budget.refused, compact(budget.refused), number(budget.refused))));
  });
  fillTable(byId("budgets"), budgetTable, rows, "No budget is set");
}

const status = (code) =>
  code ? cell(code >= 400 ? "n bad" : "n", String(code)) : element("td", { class: "n faint", title: "the caller hung up" }, "gone");

const recentTable = table("Recent requests", [["time"], ["outcome"], ["status", "n"], ["took", "n"], ["inputs", "n more"], ["model"], ["namespace"]]);
const KEPT_RECENT = 100;

export class RecentPanel {
  #entries = [];

  constructor() {
    byId("recent").classList.add("tail");
    // Rows must not move while the user points at them.
    for (const leaving of ["pointerleave", "focusout"]) byId("recent").addEventListener(leaving, () => this.#draw());
    for (const coming of ["pointerenter", "focusin"]) byId("recent").addEventListener(coming, () => this.#say(true));
  }

  /** Replaces the entries with the server's; newer ones that the `same` process sent in the meantime stay. */
  replace(entries, same = false) {
    const known = new Set(entries.map(({ id }) => id));
    const newer = this.#entries.filter(({ id, at_ms }) => same && !known.has(id) && at_ms >= (entries[0]?.at_ms ?? 0));
    this.#keep([...newer, ...entries]);
  }

  add(entries) {
    // A history read in the meantime may already contain some of them.
    const known = new Set(this.#entries.map(({ id }) => id));
    const fresh = entries.filter(({ id }) => !known.has(id));
    if (fresh.length) this.#keep([...fresh, ...this.#entries]);
  }

  #keep(entries) {
    this.#entries = entries.slice(0, KEPT_RECENT);
    this.#drawUnlessRead();
  }

  #drawUnlessRead() {
    if (!byId("recent").matches(":hover, :focus-within")) this.#draw();
  }

  #say(held) {
    write(byId("recent-note"), held ? "held while you look" : "newest first; texts are never kept");
  }

  #draw() {
    this.#say(false);
    const rows = this.#entries.map((entry) => element("tr", {},
      cell("", time(entry.at_ms)),
      cell("", chip(entry.outcome)),
      status(entry.status),
      cell("n", millis(entry.elapsed_ms)),
      cell("n more", entry.inputs === null || entry.inputs === undefined ? "–" : number(entry.inputs)),
      element("td", { class: "name", title: entry.model }, entry.model ?? (entry.route === "passthrough" ? "passed through" : "–")),
      cell("name", entry.namespace || "–")));
    fillTable(byId("recent"), recentTable, rows, "No requests yet");
  }
}
