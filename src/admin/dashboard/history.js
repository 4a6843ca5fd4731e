// Samples for the charts: fine ones for minutes, coarse ones for hours.

const KEPT_FINE = 1800;
const KEPT_COARSE = 2880;
/** A longer window uses coarse samples. */
const FINE_SECONDS = 900;
/** Pairs of a maximum window and the seconds per point of the chart. */
const STEPS = [[300, 0], [900, 6], [21_600, 60], [86_400, 300]];

/**
 * Merges the server's samples into the known ones. The server's samples take precedence. Older samples of a previous
 * process stay, and so do newer samples that the `same` process sent during the request.
 */
function merged(known, fresh, kept, same) {
  if (!fresh?.length) return known;
  const older = known.filter((sample) => sample.at_ms < fresh[0].at_ms);
  const newer = known.filter((sample) => same && sample.at_ms > fresh.at(-1).at_ms);
  return [...older, ...fresh, ...newer].slice(-kept);
}

export class History {
  #fine = [];
  #coarse = [];
  #fineStep = 2;
  #coarseStep = 60;

  load(history, same = false) {
    this.#fineStep = history.step_seconds || this.#fineStep;
    this.#coarseStep = history.coarse_step_seconds || this.#coarseStep;
    this.#fine = merged(this.#fine, history.samples, KEPT_FINE, same);
    this.#coarse = merged(this.#coarse, history.coarse, KEPT_COARSE, same);
  }

  add(sample) {
    const newest = this.#fine.at(-1);
    if (!newest || sample.at_ms > newest.at_ms) this.#fine = [...this.#fine, sample].slice(-KEPT_FINE);
  }

  static isCoarse(seconds) {
    return seconds > FINE_SECONDS;
  }

  /** Returns the last `seconds` of samples before `to`, aggregated for a readable chart; `step` is the interval. */
  window(seconds, to) {
    const coarse = History.isCoarse(seconds);
    const from = to - seconds * 1000;
    const [, step] = STEPS.find(([longest]) => seconds <= longest) ?? STEPS.at(-1);
    const since = coarse ? (this.#coarse.at(-1)?.at_ms ?? 0) : 0;
    const parts = [
      ...(coarse ? this.#coarse.map((sample) => ({ ...sample, seconds: this.#coarseStep })) : []),
      ...this.#fine.filter(({ at_ms }) => at_ms > since).map((sample) => ({ ...sample, seconds: this.#fineStep })),
    ];
    const samples = together(parts.filter(({ at_ms }) => at_ms >= from), Math.max(step, this.#fineStep));
    return { from, to, step: Math.max(step, this.#fineStep), together: step > (coarse ? this.#coarseStep : this.#fineStep), samples };
  }

  /** Returns the sum over the last `seconds`. */
  sum(seconds, to, value) {
    const recent = this.#fine.filter((sample) => sample.at_ms > to - seconds * 1000);
    return recent.reduce((sum, sample) => sum + (value(sample) ?? 0), 0);
  }
}

/** Aggregates samples into intervals of `seconds`, aligned to the clock, so that drawn points stay the same over time. */
function together(samples, seconds) {
  const sums = [];
  let mark = null;
  for (const sample of samples) {
    const own = Math.floor((sample.at_ms - 1) / (seconds * 1000));
    if (own === mark && sample.seconds < seconds) add(sums.at(-1), sample);
    else sums.push({ ...sample, inputs: { ...sample.inputs }, calls: { ...sample.calls }, latency_ms: { ...sample.latency_ms } });
    mark = own;
  }
  return sums;
}

const COUNTS = ["requests", "errors", "tokens_billed", "tokens_saved", "cost_billed", "cost_saved", "upstream_calls", "upstream_inputs", "seconds"];
const COUNTS_BY_NAME = ["inputs", "calls"];

/** Adds a sample: counts are summed, percentiles take the highest value, the other values take the latest. */
function add(sum, sample) {
  const { at_ms, resident_bytes, breaker } = sample;
  Object.assign(sum, { at_ms, resident_bytes, breaker });
  for (const name of COUNTS) sum[name] = (sum[name] ?? 0) + (sample[name] ?? 0);
  for (const counts of COUNTS_BY_NAME) {
    for (const [name, count] of Object.entries(sample[counts] ?? {})) sum[counts][name] = (sum[counts][name] ?? 0) + count;
  }
  sum.call_ms = highest(sum.call_ms, sample.call_ms ?? {});
  for (const [name, times] of Object.entries(sample.latency_ms ?? {})) sum.latency_ms[name] = highest(sum.latency_ms[name], times);
}

function highest(one, other) {
  if (!one?.count || !other.count) return one?.count ? one : other;
  const of = (name) => Math.max(one[name], other[name]);
  return { count: one.count + other.count, p50: of("p50"), p95: of("p95"), p99: of("p99") };
}
