// Round numbers for axes, and paths between points.

const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720];

/** Returns the smallest of 1, 2, 2.5, 5 times a power of ten that is not below `value`. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 2.5, 5, 10].find((digit) => digit * power >= value * 0.999999);
}

/** Returns ticks from zero to just above `max`, in round steps of `base`. */
export function ticks(max, base = 1, count = 4) {
  const step = roundUp(max / base / count) * base;
  const steps = Math.ceil(max / step - 1e-9);
  return Array.from({ length: steps + 1 }, (_, index) => index * step);
}

/** Returns at most `count` round times between `from` and `to`, in the user's time zone. */
export function moments(from, to, count) {
  const step = 60_000 * (MINUTES.find((minutes) => (to - from) / (minutes * 60_000) <= count) ?? 1440);
  const zone = new Date(to).getTimezoneOffset() * 60_000;
  const times = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) times.push(at);
  return times;
}

/** Splits points at missing values and at gaps longer than `widest`. */
export function runs(points, widest) {
  const found = [];
  let previous = null;
  for (const point of points) {
    if (point.y !== null) {
      if (previous === null || point.t - previous > widest) found.push([]);
      found.at(-1).push(point);
      previous = point.t;
    } else previous = null;
  }
  return found;
}

const at = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;

/** Returns the path of a line through each run; a run of one point is a dot. */
export function line(parts, x, y) {
  return parts.map((run) => {
    const way = run.map((point) => at(x(point.t), y(point.y))).join("L");
    return run.length === 1 ? `M${way}h0.01` : `M${way}`;
  }).join("");
}

/** Returns the path of the area between the lower and the upper edge of each run. */
export function surface(parts, x, y) {
  return parts.map((run) => {
    const wide = run.length === 1 ? [run[0], { ...run[0], t: run[0].t + 1 }] : run;
    const upper = wide.map((point) => at(x(point.t), y(point.y)));
    const lower = wide.map((point) => at(x(point.t), y(point.base))).reverse();
    return `M${upper.concat(lower).join("L")}Z`;
  }).join("");
}
