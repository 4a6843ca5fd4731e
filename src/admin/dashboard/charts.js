// The time charts, and the values that each one takes from the samples.

import { TimeChart } from "./chart.js";
import { byId } from "./dom.js";
import { MB, bytes, compact, millis, percent, short } from "./format.js";
import { unpaid } from "./headline.js";

const SOURCES = ["memory", "disk", "redis", "derived", "joined", "upstream", "stale", "mock"];
const CALLS = ["ok", "refused", "throttled", "unreadable", "unavailable"];
/** Minimum height in pixels of a series with a non-zero value. */
const LEAST = { stale: 3, mock: 5 };
const LABELS = { disk: "disk", redis: "Redis" };
const rate = (value) => compact(value);

const sources = () => new TimeChart(byId("sources"), {
  label: "Inputs per second by source",
  series: SOURCES.map((key) => ({ key, label: LABELS[key] ?? key, hatched: key === "mock", least: LEAST[key] })),
  stacked: true,
  format: rate,
  axis: short,
  empty: "No inputs in this time",
});

const ratio = () => new TimeChart(byId("ratio"), {
  label: "Hit ratio",
  series: [{ key: "memory", label: "hits" }],
  fixed: [0, 0.25, 0.5, 0.75, 1],
  format: percent,
  axis: (share) => `${share * 100} %`,
  empty: "No inputs in this time",
});

const requests = () => new TimeChart(byId("requests"), {
  label: "Requests per second",
  series: [{ key: "plain", label: "requests" }, { key: "mock", label: "errors", quiet: true }],
  format: rate,
  axis: short,
  empty: "No samples yet",
});

const milliseconds = (ms) => (ms >= 1000 ? `${short(ms / 1000)} s` : `${short(ms)} ms`);

const latency = () => new TimeChart(byId("latency"), {
  label: "Response time",
  series: [{ key: "p99", label: "p99" }, { key: "p95", label: "p95" }, { key: "p50", label: "p50" }],
  floor: 0.2,
  format: millis,
  axis: milliseconds,
  empty: "None in this time",
});

const calls = () => new TimeChart(byId("calls"), {
  label: "Upstream calls per second by how they ended",
  series: CALLS.map((key) => ({ key, label: key, least: key === "ok" ? 0 : 2 })),
  stacked: true,
  format: rate,
  axis: short,
  empty: "No calls in this time",
});

const callTimes = () => new TimeChart(byId("call-times"), {
  label: "Time of upstream calls",
  series: [{ key: "p99", label: "p99" }, { key: "p95", label: "p95" }, { key: "p50", label: "p50" }],
  floor: 0.2,
  format: millis,
  axis: milliseconds,
  empty: "No calls in this time",
});

const tokens = () => new TimeChart(byId("tokens"), {
  label: "Tokens per second",
  series: [{ key: "memory", label: "saved" }, { key: "upstream", label: "billed" }],
  stacked: true,
  format: rate,
  axis: short,
  empty: "No tokens in this time",
});

const memory = (host) => new TimeChart(host, {
  label: "Resident memory",
  series: [{ key: "plain", label: "resident" }],
  base: MB,
  floor: MB,
  format: bytes,
  axis: (value) => (value ? bytes(value) : "0"),
  empty: "No samples yet",
});

/** All charts; `memoryHost` is the element of another panel for the memory chart. */
export class Charts {
  #charts;

  constructor(memoryHost) {
    this.#charts = { sources: sources(), ratio: ratio(), requests: requests(), latency: latency(), calls: calls(), callTimes: callTimes(), tokens: tokens(), memory: memory(memoryHost) };
  }

  draw(window, latencyOf, limitBytes) {
    const perSecond = (sample, value) => (value ?? 0) / sample.seconds;
    const plot = (name, values, more = {}) => {
      const points = window.samples.map((sample) => ({ t: sample.at_ms, values: values(sample) }));
      this.#charts[name].draw({ ...window, points, ...more });
    };
    plot("sources", (sample) => SOURCES.map((name) => perSecond(sample, sample.inputs[name])));
    plot("ratio", (sample) => [share(sample.inputs)]);
    plot("requests", (sample) => [perSecond(sample, sample.requests), perSecond(sample, sample.errors)]);
    plot("latency", ({ latency_ms: of }) => ["p99", "p95", "p50"].map((name) => (of?.[latencyOf]?.count ? of[latencyOf][name] : null)));
    plot("calls", (sample) => CALLS.map((name) => perSecond(sample, sample.calls?.[name])));
    plot("callTimes", ({ call_ms: of }) => ["p99", "p95", "p50"].map((name) => (of?.count ? of[name] : null)));
    plot("tokens", (sample) => [perSecond(sample, sample.tokens_saved), perSecond(sample, sample.tokens_billed)]);
    plot("memory", (sample) => [sample.resident_bytes ?? null], { limit: limitBytes });
  }
}

/** Returns the share of saved inputs, or null without inputs. */
function share(inputs) {
  const all = SOURCES.reduce((sum, name) => sum + (inputs[name] ?? 0), 0);
  return all ? unpaid(inputs) / all : null;
}
