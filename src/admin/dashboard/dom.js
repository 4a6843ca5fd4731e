// Elements without markup: whatever the server says becomes text or an attribute's value, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const element = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

export const drawing = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** Writes a text only where it differs, so that screen readers are not told again. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A figure: `value` for machines, `text` for people, `exact` on hover where the text is shortened. */
export function figure(value, text, exact) {
  return element("data", { value: String(value), title: exact && exact !== text ? exact : null }, text);
}

/** Updates a figure that is there already. */
export function show(node, value, text, exact) {
  node.value = String(value ?? "");
  write(node, text);
  if (exact && exact !== text) node.title = exact;
  else node.removeAttribute("title");
}

/** A table that scrolls sideways by itself where it must. `columns` are `[heading, class]`. */
export function table(label, columns) {
  const heads = columns.map(([heading, kind]) => element("th", { scope: "col", class: kind }, heading));
  const body = element("tbody");
  const whole = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
  return { body, host: element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, whole) };
}

export const cell = (kind, ...children) => element("td", { class: kind }, ...children);

export const empty = (text) => element("p", { class: "empty" }, text);

/** A value that this browser remembers, where it may. */
export const remembered = {
  get(name) {
    try {
      return localStorage.getItem(`vecho-${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(`vecho-${name}`);
      else localStorage.setItem(`vecho-${name}`, value);
    } catch {
      // Then it holds until the page goes.
    }
  },
};
