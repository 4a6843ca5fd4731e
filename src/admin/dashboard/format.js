// Formats figures for display. The locale is fixed, since the surrounding text is English.

const LOCALE = "en-US";
const plain = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 2 });
const three = new Intl.NumberFormat(LOCALE, { maximumSignificantDigits: 3 });
const two = new Intl.NumberFormat(LOCALE, { maximumSignificantDigits: 2 });
const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];
const BYTES = [[2 ** 40, "TB"], [2 ** 30, "GB"], [2 ** 20, "MB"], [2 ** 10, "KB"]];

export const MB = 2 ** 20;

export const number = (value) => plain.format(value ?? 0);

/** Formats a number, with three digits and a unit from ten thousand on. */
export function compact(value) {
  if (Math.abs(value) < 10_000) return Math.abs(value) < 100 && !Number.isInteger(value) ? three.format(value) : plain.format(Math.round(value));
  const [size, unit] = UNITS.find(([size]) => Math.abs(value) >= size * 0.9995);
  return `${three.format(value / size)}\u00a0${unit}`;
}

/** Formats an axis label: short, with three digits. */
export function short(value) {
  const found = UNITS.find(([size]) => Math.abs(value) >= size);
  return found ? `${three.format(value / found[0])}\u00a0${found[1]}` : three.format(value);
}

/** Formats a share. Rounding never produces 0 % or 100 % unless the value is exactly that. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "<\u00a00.1\u00a0%";
  const tenths = share < 1 ? Math.min(Math.round(share * 1000), 999) : 1000;
  return `${tenths === 1000 || tenths === 0 ? tenths / 10 : (tenths / 10).toFixed(1)}\u00a0%`;
}

export function millis(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${three.format(value / 1000)}\u00a0s`;
  if (value >= 100) return `${Math.round(value)}\u00a0ms`;
  return `${two.format(value)}\u00a0ms`;
}

/** Formats bytes in units of 1024, as in the configuration. */
export function bytes(value) {
  const found = BYTES.find(([size]) => value >= size);
  return found ? `${three.format(value / found[0])}\u00a0${found[1]}` : `${plain.format(value)}\u00a0B`;
}

export function duration(seconds) {
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days}\u00a0d ${hours}\u00a0h`;
  if (hours) return `${hours}\u00a0h ${minutes}\u00a0min`;
  return minutes ? `${minutes}\u00a0min` : `${whole}\u00a0s`;
}

function currencyFormat(value, currency, digits) {
  try {
    return new Intl.NumberFormat(LOCALE, { style: "currency", currency, ...digits }).format(value);
  } catch {
    return `${new Intl.NumberFormat(LOCALE, digits).format(value)}\u00a0${currency}`;
  }
}

/** Formats an amount in cents; a smaller positive amount is shown as less than one cent. */
export function money(value, currency) {
  const cents = (sum) => currencyFormat(sum, currency, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  return value > 0 && value < 0.01 ? `<\u00a0${cents(0.01)}` : cents(value);
}

/** Formats a price, which may have more digits than an amount. */
export const price = (value, currency) => currencyFormat(value, currency, { minimumFractionDigits: 2, maximumFractionDigits: 6 });

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const hours = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** Formats a number for narrow places of about four characters. */
export function tight(value) {
  const found = UNITS.find(([size]) => value >= size);
  return found ? `${two.format(value / found[0])}${found[1]}` : plain.format(value);
}

export const time = (ms) => clock.format(ms);
export const hour = (ms) => hours.format(ms);

export const count = (value, one, many) => `${number(value)}\u00a0${value === 1 ? one : many}`;
