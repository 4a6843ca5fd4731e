// Creates elements without markup: data from the server becomes text or an attribute value, never HTML.

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

/** Writes a text only if it differs, so that screen readers do not announce it again. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Creates a figure: `value` for machines, `text` for people, `exact` on hover if the text is shortened. */
export function figure(value, text, exact) {
  return element("data", { value: String(value), title: exact && exact !== text ? exact : null }, text);
}

/** Updates an existing figure. */
export function show(node, value, text, exact) {
  node.value = String(value ?? "");
  write(node, text);
  if (exact && exact !== text) node.title = exact;
  else node.removeAttribute("title");
}

/** Creates a table with its own horizontal scrolling. `columns` are `[heading, class]`. */
export function table(label, columns) {
  const heads = columns.map(([heading, kind]) => element("th", { scope: "col", class: kind }, heading));
  const body = element("tbody");
  const whole = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
  return { body, host: element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, whole) };
}

export const cell = (kind, ...children) => element("td", { class: kind }, ...children);

export const empty = (text) => element("p", { class: "empty" }, text);

/** Values in the browser's local storage, if it is available. */
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
      // Without storage, the value is lost when the page closes.
    }
  },
};
