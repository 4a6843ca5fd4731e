// Time charts: lines or stacked areas, an axis with units, and a crosshair shared by all charts.

import { drawing, element, write } from "./dom.js";
import { hour, time } from "./format.js";
import { line, moments, runs, surface, ticks } from "./scale.js";

const LEFT = 52;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

/** The time under the pointer, or null. Every chart shows its values at that time. */
export const crosshair = new (class extends EventTarget {
  at = null;
  set(at) {
    if (at === this.at) return;
    this.at = at;
    this.dispatchEvent(new Event("move"));
  }
})();

let charts = 0;

export class TimeChart {
  #host;
  #spec;
  #svg;
  #parts = {};
  #values = [];
  #data = { from: 0, to: 1, step: 2, points: [] };
  #size = { width: 300, height: 160 };

  /**
   * `spec` has `label`, `stacked`, `format` of values and `axis` of ticks, `base` of round numbers, `floor` (the minimum
   * of the axis maximum), `fixed` ticks, `empty` (the text without data), `legend: false`, and `series`. A series has
   * `key`, `label`, `hatched`, `quiet` (draws no zeros) and `least` (minimum height in pixels if stacked).
   */
  constructor(host, spec) {
    this.#host = host;
    this.#spec = spec;
    this.#build();
    new ResizeObserver(() => this.#resized()).observe(this.#parts.plot);
    crosshair.addEventListener("move", () => this.#point());
  }

  /** Draws `points`: `{ t, values }`, one value or null for each series. `limit` is drawn as a separate line. */
  draw(data) {
    this.#data = data;
    this.#redraw();
  }

  #build() {
    const { series, label, empty } = this.#spec;
    const { tag, pattern } = hatch(`hatch-${(charts += 1)}`);
    const paths = series.map(({ key, hatched }) =>
      drawing("path", this.#spec.stacked ? { class: `surface c-${key}`, fill: hatched ? `url(#${tag})` : null } : { class: `line c-${key}` }));
    const part = { grid: drawing("g", { class: "grid" }), limit: drawing("path", { class: "limit" }), cross: drawing("path", { class: "cross" }) };
    const dots = (this.#spec.stacked ? [] : series).map(({ key }) => drawing("circle", { class: `dot c-${key}`, r: 3.5, visibility: "hidden" }));
    this.#svg = drawing("svg", { role: "img", "aria-label": label }, drawing("defs", {}, pattern), part.grid, ...paths, part.limit, part.cross, ...dots);
    const note = element("p", { class: "empty over", hidden: true }, empty ?? "Nothing yet");
    const plot = element("div", { class: "plot", tabindex: "0", role: "group", "aria-label": `${label}. Left and right arrows read values.` }, this.#svg, note);
    this.#values = series.map(() => element("b"));
    const names = series.map(({ key, label, hatched }, index) =>
      element("li", { class: `c-${key}` }, element("i", { class: hatched ? "swatch hatched" : "swatch" }), `${label} `, this.#values[index]));
    this.#parts = { ...part, paths, dots, plot, note };
    this.#host.replaceChildren(element("ul", { class: "legend" }, ...names), plot);
    this.#listen(plot);
  }

  #listen(plot) {
    const seek = (event) => {
      const { left } = plot.getBoundingClientRect();
      crosshair.set(this.#nearest(this.#time(event.clientX - left))?.t ?? null);
    };
    plot.addEventListener("pointermove", seek);
    plot.addEventListener("pointerdown", seek);
    for (const leaving of ["pointerleave", "blur"]) plot.addEventListener(leaving, () => crosshair.set(null));
    plot.addEventListener("keydown", (event) => this.#walk(event));
  }

  #walk(event) {
    const { points } = this.#data;
    const here = points.findIndex((point) => point.t === crosshair.at);
    const from = here < 0 ? points.length - 1 : here;
    const to = { ArrowLeft: here < 0 ? from : from - 1, ArrowRight: from + 1, Home: 0, End: points.length - 1 }[event.key];
    if (event.key === "Escape") crosshair.set(null);
    if (to === undefined || !points.length) return;
    event.preventDefault();
    const point = points[Math.max(0, Math.min(points.length - 1, to))];
    crosshair.set(point.t);
    this.#host.dispatchEvent(new CustomEvent("read", { bubbles: true, detail: this.#words(point) }));
  }

  #words(point) {
    const { series, label } = this.#spec;
    const values = series.map(({ label: name }, index) => `${name} ${this.#format(point.values[index])}`);
    return `${label}, ${time(point.t)}: ${values.join(", ")}`;
  }

  #format(value) {
    return value === null || value === undefined ? "–" : this.#spec.format(value);
  }

  #resized() {
    const { clientWidth: width, clientHeight: height } = this.#parts.plot;
    if (!width || (width === this.#size.width && height === this.#size.height)) return;
    this.#size = { width, height };
    this.#redraw();
  }

  #x(t) {
    const { from, to } = this.#data;
    return LEFT + ((t - from) / (to - from)) * (this.#size.width - LEFT - RIGHT);
  }

  #time(x) {
    const { from, to } = this.#data;
    return from + ((x - LEFT) / (this.#size.width - LEFT - RIGHT)) * (to - from);
  }

  #y(value) {
    return TOP + (1 - value / this.top) * (this.#size.height - TOP - BOTTOM);
  }

  #nearest(t) {
    return this.#data.points.reduce((best, point) =>
      (best === null || Math.abs(point.t - t) < Math.abs(best.t - t) ? point : best), null);
  }

  #redraw() {
    const { points, limit, step } = this.#data;
    const { stacked, fixed, base, floor = 1 } = this.#spec;
    const highest = points.map(({ values }) => (stacked ? total(values) : Math.max(...values.map((value) => value ?? 0))));
    const marks = fixed ?? ticks(Math.max(floor, limit ?? 0, ...highest), base);
    this.top = marks.at(-1);
    this.#svg.setAttribute("viewBox", `0 0 ${this.#size.width} ${this.#size.height}`);
    this.#axes(marks);
    this.#shapes(step * 2500);
    this.#parts.limit.setAttribute("d", limit ? `M${LEFT} ${this.#y(limit).toFixed(1)}H${this.#size.width - RIGHT}` : "");
    this.#parts.note.hidden = points.some(({ values }) => values.some((value) => value !== null && (value > 0 || !this.#spec.stacked)));
    this.#point();
  }

  #axes(marks) {
    const { width, height } = this.#size;
    const lines = marks.map((mark) => drawing("path", { d: `M${LEFT} ${this.#y(mark).toFixed(1)}H${width - RIGHT}` }));
    const values = marks.map((mark) => drawing("text", { x: LEFT - 6, y: this.#y(mark) + 3.5, "text-anchor": "end" }, this.#spec.axis(mark)));
    const times = moments(this.#data.from, this.#data.to, (width - LEFT) / 64)
      .map((at) => [this.#x(at), at])
      .filter(([x]) => x > LEFT + 12 && x < width - 16)
      .map(([x, at]) => drawing("text", { x, y: height - 4, "text-anchor": "middle" }, hour(at)));
    this.#parts.grid.replaceChildren(...lines, ...values, ...times);
  }

  #shapes(widest) {
    const [x, y] = [(t) => this.#x(t), (value) => this.#y(value)];
    const below = this.#data.points.map(() => 0);
    this.#parts.paths.forEach((path, index) => {
      const points = this.#data.points.map(({ t, values }, place) => {
        const base = below[place];
        if (this.#spec.stacked) below[place] += this.#height(index, values[index]);
        return { t, base, y: this.#spec.stacked ? below[place] : this.#drawn(index, values[index]) };
      });
      const parts = runs(points, widest);
      path.setAttribute("d", this.#spec.stacked ? surface(parts, x, y) : line(parts, x, y));
    });
  }

  /** Returns a height with the series' minimum, so that small values stay visible. */
  #height(index, value) {
    const { least = 0 } = this.#spec.series[index];
    return value > 0 ? Math.max(value, (least * this.top) / (this.#size.height - TOP - BOTTOM)) : 0;
  }

  #drawn(index, value = null) {
    return value === 0 && this.#spec.series[index].quiet ? null : value;
  }

  /** Moves crosshair, dots and legend to the time under the pointer, or to the newest sample. */
  #point() {
    const { points } = this.#data;
    const pointed = crosshair.at === null ? null : this.#nearest(crosshair.at);
    const { dots, cross } = this.#parts;
    cross.setAttribute("d", pointed ? `M${this.#x(pointed.t).toFixed(1)} ${TOP}V${this.#size.height - BOTTOM}` : "");
    const shown = pointed ?? points.at(-1);
    this.#values.forEach((node, index) => write(node, this.#format(shown?.values[index])));
    dots.forEach((dot, index) => {
      const value = pointed && this.#drawn(index, pointed.values[index]);
      dot.setAttribute("visibility", value === null ? "hidden" : "visible");
      if (value === null) return;
      dot.setAttribute("cx", this.#x(pointed.t));
      dot.setAttribute("cy", this.#y(value));
    });
    if (shown) this.#svg.setAttribute("aria-label", this.#words(shown));
  }
}

const total = (values) => values.reduce((sum, value) => sum + (value ?? 0), 0);

/** Creates a striped pattern for mock data, to distinguish it without colours. */
function hatch(tag) {
  const square = { width: 6, height: 6 };
  const pattern = drawing("pattern", { id: tag, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)", ...square },
    drawing("rect", { class: "hatch-ground", ...square }), drawing("rect", { class: "hatch-stripe", width: 2.5, height: 6 }));
  return { tag, pattern };
}
