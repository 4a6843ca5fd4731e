// Prints the results of the dashboard's modules that need no page, as one JSON document.

import { readFile } from "node:fs/promises";

/** Loads a module of the page from its source, because no package file declares these files as modules. */
async function load(name) {
  const source = await readFile(`${process.env.MODULES}/${name}`);
  return import(`data:text/javascript;base64,${source.toString("base64")}`);
}

const { bytes, compact, duration, millis, money, percent } = await load("format.js");
const { History } = await load("history.js");
const { runs, ticks } = await load("scale.js");

const START = 1_700_000_000_000;
const sample = (at, inputs, p99 = 1) => ({
  at_ms: START + at * 1000, requests: 1, errors: 0, inputs: { memory: inputs }, tokens_saved: 0, tokens_billed: 0,
  latency_ms: { all: { count: 1, p50: 1, p95: 1, p99 } }, resident_bytes: at, breaker: "closed",
});

function oldAndNew() {
  const history = new History();
  history.load({ step_seconds: 2, samples: [sample(2, 1), sample(4, 2)], coarse: [] });
  history.add(sample(6, 3));
  history.add(sample(6, 4));
  const live = history.window(300, START + 6000).samples.map(({ inputs }) => inputs.memory);
  history.load({ step_seconds: 2, samples: [sample(2, 1), sample(4, 2)], coarse: [] }, true);
  const overtaken = history.window(300, START + 6000).samples.map(({ inputs }) => inputs.memory);
  history.load({ step_seconds: 2, samples: [sample(100, 7)], coarse: [] });
  return { live, overtaken, restarted: history.window(300, START + 100_000).samples.map(({ inputs }) => inputs.memory) };
}

function longTimes() {
  const history = new History();
  const fine = Array.from({ length: 60 }, (_, index) => sample(index * 2 + 2, 1, index));
  const coarse = [{ ...sample(60, 100, 5), requests: 30 }];
  history.load({ step_seconds: 2, samples: fine, coarse_step_seconds: 60, coarse });
  const read = (seconds) => {
    const { samples, together } = history.window(seconds, START + 120_000);
    return {
      together,
      inputs: samples.reduce((sum, { inputs }) => sum + inputs.memory, 0),
      seconds: samples.reduce((sum, { seconds }) => sum + seconds, 0),
      points: samples.length,
      last: samples.at(-1).latency_ms.all,
    };
  };
  return { minutes: read(300), quarter: read(900), hours: read(21_600) };
}

const report = {
  percent: [0, 0.0004, 0.5, 0.99999, 1].map(percent),
  compact: [0, 0.126, 999, 9999, 12_345, 999_999, 1_234_567, 9.9e9].map(compact),
  millis: [null, 0.0123, 4.56, 123.4, 1234].map(millis),
  bytes: [0, 1536, 500 * 2 ** 20, 2 ** 30].map(bytes),
  duration: [42, 90, 7260, 90_000].map(duration),
  money: [money(0, "USD"), money(0.0000123, "USD"), money(12.3, "EUR"), money(1, "no currency")],
  ticks: [ticks(1), ticks(7), ticks(130), ticks(500 * 2 ** 20, 2 ** 20)],
  runs: runs([0, 2, 4, 20, 22, 24].map((t) => ({ t, y: t === 24 ? null : 1 })), 5).map((run) => run.map(({ t }) => t)),
  history: oldAndNew(),
  times: longTimes(),
};
process.stdout.write(JSON.stringify(report));
