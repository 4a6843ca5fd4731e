// The samples that charts are drawn from: fine ones for minutes, coarse ones for hours.

const KEPT_FINE = 1800;
const KEPT_COARSE = 2880;
/** A window longer than this is drawn from coarse samples. */
const FINE_SECONDS = 1800;

/** What the server has replaces what is here; older samples, of a process that is gone, stay. */
function merged(known, fresh, kept) {
  if (!fresh?.length) return known;
  const older = known.filter((sample) => sample.at_ms < fresh[0].at_ms);
  return [...older, ...fresh].slice(-kept);
}

export class History {
  #fine = [];
  #coarse = [];
  #fineStep = 2;
  #coarseStep = 60;

  load(history) {
    this.#fineStep = history.step_seconds || this.#fineStep;
    this.#coarseStep = history.coarse_step_seconds || this.#coarseStep;
    this.#fine = merged(this.#fine, history.samples, KEPT_FINE);
    this.#coarse = merged(this.#coarse, history.coarse, KEPT_COARSE);
  }

  add(sample) {
    const newest = this.#fine.at(-1);
    if (!newest || sample.at_ms > newest.at_ms) this.#fine = [...this.#fine, sample].slice(-KEPT_FINE);
  }

  static isCoarse(seconds) {
    return seconds > FINE_SECONDS;
  }

  /** The samples of the last `seconds` before `to`, each with the seconds that it covers. */
  window(seconds, to) {
    const coarse = History.isCoarse(seconds);
    const from = to - seconds * 1000;
    const step = coarse ? this.#coarseStep : this.#fineStep;
    const samples = coarse ? this.#coarse.concat(this.#tail()) : this.#fine;
    return { from, to, step, samples: samples.filter((sample) => sample.at_ms >= from).map((sample) => covered(sample, step)) };
  }

  /** The sum of the last `seconds`. */
  sum(seconds, to, value) {
    const recent = this.#fine.filter((sample) => sample.at_ms > to - seconds * 1000);
    return recent.reduce((sum, sample) => sum + (value(sample) ?? 0), 0);
  }

  /** What has happened since the last coarse sample: counts add up, percentiles do not, so they are left out. */
  #tail() {
    const since = this.#coarse.at(-1)?.at_ms ?? 0;
    const fine = this.#fine.filter((sample) => sample.at_ms > since);
    const parts = [];
    for (const sample of fine) {
      const open = parts.at(-1);
      if (open && sample.at_ms - open.begin < this.#coarseStep * 1000) addTo(open, sample, this.#fineStep);
      else parts.push({ ...structuredClone(sample), begin: sample.at_ms, seconds: this.#fineStep, latency_ms: {} });
    }
    return parts;
  }
}

function covered(sample, step) {
  return sample.seconds ? sample : { ...sample, seconds: step };
}

function addTo(sum, sample, seconds) {
  for (const name of ["requests", "errors", "tokens_billed", "tokens_saved", "cost_billed", "cost_saved", "upstream_calls", "upstream_inputs"]) {
    sum[name] = (sum[name] ?? 0) + (sample[name] ?? 0);
  }
  for (const [name, inputs] of Object.entries(sample.inputs ?? {})) sum.inputs[name] = (sum.inputs[name] ?? 0) + inputs;
  Object.assign(sum, { at_ms: sample.at_ms, resident_bytes: sample.resident_bytes, breaker: sample.breaker, seconds: sum.seconds + seconds });
}
