// Charts without a time axis: bars, meters with a limit, ranges on a shared scale.

import { drawing, element, write } from "./dom.js";
import { compact, short, tight } from "./format.js";
import { ticks } from "./scale.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [400, 190, 44, 34, 18];

/** Draws bars with their values above them; `items` are `{ label, name, value }`, where `name` is the full label. */
export function bars(label, items, unit) {
  const marks = ticks(Math.max(4, ...items.map(({ value }) => value)));
  const y = (value) => TOP + (1 - value / marks.at(-1)) * (HEIGHT - TOP - BOTTOM);
  const slot = (WIDTH - LEFT - 4) / items.length;
  const grid = marks.map((mark) => drawing("g", {},
    drawing("path", { d: `M${LEFT} ${y(mark)}H${WIDTH - 4}` }),
    drawing("text", { x: LEFT - 6, y: y(mark) + 3.5, "text-anchor": "end" }, short(mark))));
  const shapes = items.map(({ label: mark, name, value }, index) => {
    const [left, middle] = [LEFT + index * slot + slot * 0.14, LEFT + (index + 0.5) * slot];
    return drawing("g", { class: "barred" },
      drawing("title", {}, `${name}: ${compact(value)} ${unit}`),
      drawing("rect", { class: "slot", x: LEFT + index * slot, y: TOP, width: slot, height: HEIGHT - TOP - BOTTOM }),
      drawing("rect", { class: "barshape", x: left, y: y(value), width: slot * 0.72, height: Math.max(value ? 1 : 0, y(0) - y(value)), rx: 2 }),
      value ? drawing("text", { class: "above", x: middle, y: y(value) - 4, "text-anchor": "middle" }, tight(value)) : null,
      drawing("text", { x: middle, y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, mark));
  });
  const foot = drawing("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "inputs in one call, at most");
  return drawing("svg", { class: "bars", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    drawing("g", { class: "grid" }, ...grid, foot), ...shapes);
}

/** A bar that shows a value relative to its limit, with marks for thresholds. */
export class Meter {
  #bar = element("span", { class: "filled" });
  #text = element("span", { class: "figures" });
  #meter;

  constructor(label, marks = []) {
    const lines = marks.map(([share, title]) => {
      const mark = element("span", { class: "mark", title });
      mark.style.insetInlineStart = `${share * 100}%`;
      return mark;
    });
    this.#meter = element("div", { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 }, this.#bar, ...lines);
    this.host = element("div", { class: "metered" }, element("span", { class: "name" }, label), this.#text, this.#meter);
  }

  show(share, text, level) {
    const percent = Math.max(0, Math.min(100, share * 100));
    this.#bar.style.inlineSize = `${percent}%`;
    this.#meter.setAttribute("aria-valuenow", percent.toFixed(1));
    this.#meter.setAttribute("aria-valuetext", text);
    this.#meter.dataset.level = level;
    write(this.#text, text);
  }
}

const DECADES = { from: -1, to: 4 };
const place = (ms) => ((Math.log10(Math.max(ms, 0.1)) - DECADES.from) / (DECADES.to - DECADES.from)) * 100;

/** Draws the range from the median to the 99th percentile on a logarithmic scale that all rows share. */
export function range({ p50, p95, p99 }, kind) {
  const [from, middle, to] = [p50, p95, p99].map((value) => Math.min(100, place(value ?? 0)));
  const lines = [0, 1, 2, 3].map((power) => drawing("path", { class: "decade", d: `M${place(10 ** power)} 0V12` }));
  return drawing("svg", { class: "range", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    ...lines,
    drawing("path", { class: `stretch c-${kind}`, d: `M${from} 6H${Math.max(to, from + 0.5)}` }),
    ...[from, middle, to].map((x) => drawing("path", { class: `tick c-${kind}`, d: `M${x} 2V10` })));
}

/** Draws states over time with their durations; `of` returns the CSS class of a sample's state, or null. */
export function strip(label, { from, to, samples }, of, least = 0.4) {
  const x = (t) => ((t - from) / (to - from)) * 100;
  const pieces = [];
  for (const sample of samples) {
    const [begin, end] = [Math.max(0, x(sample.at_ms - sample.seconds * 1000)), x(sample.at_ms)];
    const [state, last] = [of(sample), pieces.at(-1)];
    if (last && last.state === state && begin - last.end < 1) last.end = end;
    else pieces.push({ state, begin, end });
  }
  const shapes = pieces.filter(({ state }) => state).map(({ state, begin, end }) =>
    drawing("rect", { class: state, x: Math.min(begin, 100 - least), y: 0, width: Math.max(least, end - begin), height: 8 }));
  return drawing("svg", { class: "strip", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": label }, ...shapes);
}
