// The headline figures and the warnings.

import { byId, element, show, write } from "./dom.js";
import { bytes, compact, count, duration, millis, money, number, percent, time } from "./format.js";

const LEVELS = { healthy: "good", degraded: "warn", error: "error" };
/** Time for which a mock or stale answer is reported. */
const NEWS_SECONDS = 60;

export function headline(now, history) {
  const { stats } = now;
  const { performance_monitor: monitor, savings } = stats;
  about(now);
  mocks(now);
  ratio(stats, now, history);
  show(byId("total-requests"), monitor.total_requests, compact(monitor.total_requests), number(monitor.total_requests));
  write(byId("requests-note"), `${compact(monitor.requests_per_second)} /s · errors ${percent(monitor.error_rate)}`);
  const seen = monitor.total_requests > 0;
  show(byId("p50"), monitor.p50, seen ? millis(monitor.p50) : "–", `${number(monitor.p50)} ms`);
  write(byId("latency-note"), seen ? `p95 ${millis(monitor.p95)} · p99 ${millis(monitor.p99)}` : "no requests yet");
  saved(savings);
  memory(now.memory);
}

function about({ version, upstream, started_ms, at_ms }) {
  write(byId("about"), `${version} · up ${duration((at_ms - started_ms) / 1000)} · in front of ${upstream.url}`);
}

function mocks({ inputs, incidents = [] }) {
  const answered = inputs.mock ?? 0;
  show(byId("mocks"), answered, compact(answered), number(answered));
  const last = incidents.find(({ embed_again: affected }) => affected)?.embed_again;
  write(byId("mocks-note"), last ? `last at ${time(Date.parse(last.to))} · embed again` : `${compact(inputs.stale ?? 0)} stale`);
  byId("mocks-tile").dataset.level = answered ? "error" : "none";
}

function ratio(stats, now, history) {
  const inputs = Object.values(now.inputs).reduce((sum, value) => sum + value, 0);
  const { hit_ratio } = stats.embedding_cache;
  show(byId("hit-ratio"), hit_ratio, inputs ? percent(hit_ratio) : "–");
  const recent = (value) => history.sum(300, now.at_ms, value);
  const all = recent(({ inputs }) => Object.values(inputs).reduce((sum, value) => sum + value, 0));
  const good = recent(({ inputs }) => unpaid(inputs));
  const of = `${compact(inputs)} ${inputs === 1 ? "input" : "inputs"}`;
  write(byId("hit-ratio-note"), all ? `${of} · 5 min: ${percent(good / all)}` : of);
}

/** Returns the number of inputs with a correct answer and without a charge. */
export const unpaid = ({ memory = 0, disk = 0, redis = 0, derived = 0, joined = 0 }) =>
  memory + disk + redis + derived + joined;

function saved(savings) {
  const { currency } = savings;
  show(byId("tokens-saved"), savings.tokens_saved, compact(savings.tokens_saved), number(savings.tokens_saved));
  write(byId("tokens-note"), `billed ${compact(savings.tokens_billed)}`);
  show(byId("cost-saved"), savings.cost_saved, money(savings.cost_saved, currency), `${savings.cost_saved} ${currency}`);
  const unpriced = savings.unpriced_tokens ? ` · ${compact(savings.unpriced_tokens)} tokens unpriced` : "";
  write(byId("cost-note"), `billed ${money(savings.cost_billed, currency)}${unpriced}`);
}

function memory({ resident_bytes, limit_bytes }) {
  show(byId("resident"), resident_bytes, bytes(resident_bytes), `${number(resident_bytes)} bytes`);
  write(byId("memory-note"), limit_bytes ? `${percent(resident_bytes / limit_bytes)} of ${bytes(limit_bytes)}` : "no limit");
}

const WORST_FIRST = ["error", "warn", "note"];

/** Returns the warnings, worst first: `[level, title, text]`. */
function warnings(now, history) {
  const found = [...incident(now, history)];
  const { breaker, url } = now.upstream;
  if (breaker === "open") found.push(["error", "The breaker is open.", "The upstream kept failing, so it is left alone but for single probes."]);
  if (breaker === "half-open") found.push(["warn", "The breaker is half-open.", "A probe finds out whether the upstream is back."]);
  if (url === "mock:") found.push(["note", "The mock embedder is the upstream.", "Every vector here is made up: for demos and for the CI of applications."]);
  const told = /answers (are|were) (mocks|stale)|requests fail, since|^the breaker/;
  const level = now.health.status === "error" ? "error" : "warn";
  const others = now.health.warnings.filter((text) => !told.test(text)).map((text) => `${text[0].toUpperCase()}${text.slice(1)}.`);
  if (others.length) found.push([level, others[0], others.slice(1).join(" ")]);
  return found.sort(([one], [other]) => WORST_FIRST.indexOf(one) - WORST_FIRST.indexOf(other));
}

/** Returns mocks, then errors, then stale entries, each with its cause, its models and its start. */
function incident(now, history) {
  const newest = now.incidents?.[0];
  const served = (name) => history.sum(NEWS_SECONDS, now.at_ms, ({ inputs }) => inputs[name]);
  const [mocks, stale] = [served("mock"), served("stale")];
  const { active = false, cause = "unknown", models = [], mock_inputs = 0, stale_inputs = 0, failed_requests = 0 } = newest ?? {};
  const clock = newest ? time(Date.parse(newest.from)) : "";
  const since = active ? `since ${clock}` : `from ${clock} to ${newest?.to ? time(Date.parse(newest.to)) : ""}`;
  const why = `${since}, for ${models.map(({ model }) => model).slice(0, 3).join(", ")}. Cause: ${cause}.`;
  const found = [];
  if (active ? mock_inputs : mocks > 0) {
    const title = active ? "Mocks are being served." : "Mocks were served.";
    found.push(["error", title, `${count(mock_inputs, "input", "inputs")} got a made-up vector ${why} Embed these again; vecho stores none of them.`]);
  }
  if (active && failed_requests) found.push(["error", "Requests fail.", `${count(failed_requests, "request", "requests")} got an error ${why}`]);
  if (active ? stale_inputs : stale > 0) {
    const title = active ? "Stale entries are being served." : "Stale entries were served.";
    found.push(["warn", title, `${count(stale_inputs, "input", "inputs")} got a vector past its time ${why}`]);
  }
  return found;
}

let told = "";

/** Shows the warnings. A screen reader announces them when their kind changes, not with every figure. */
export function warn(now, history) {
  const found = warnings(now, history);
  const health = byId("health");
  write(health, now.health.status);
  health.dataset.level = LEVELS[now.health.status] ?? "none";
  document.title = found.some(([level]) => level === "error") ? `\u26a0 ${found[0][1]} vecho` : "vecho";
  const banner = byId("banner");
  const kinds = found.map(([level, title]) => `${level} ${title.replace(/[\d.]+/g, "")}`).join();
  if (kinds === told) {
    found.forEach(([, title, text], index) => {
      write(banner.children[index].children[0], title);
      write(banner.children[index].children[1], text);
    });
    return;
  }
  told = kinds;
  banner.hidden = !found.length;
  banner.replaceChildren(...found.map(([level, title, text]) =>
    element("p", { class: "warning", "data-level": level }, element("strong", {}, title), element("span", {}, text))));
}

/** Shows that the connection is lost: the state is unknown, so the page must not look healthy. */
export function lost(now, link) {
  const health = byId("health");
  const since = now ? ` since ${time(now.at_ms)}` : "";
  write(health, `unknown${since}`);
  health.dataset.level = "none";
  document.title = `? ${link} vecho`;
}
