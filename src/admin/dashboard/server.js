// Requests to the server of this page, with the admin token if one was entered.

/** The token is kept only in memory, until the page closes. */
let token = "";
let wake = () => {};

/** Uses a token for all further requests; an empty one means no token. */
export function useToken(value) {
  token = value;
  wake();
}

export const hasToken = () => token !== "";

/** Waits until a token is entered. */
export const anotherToken = () => new Promise((resolve) => (wake = resolve));

/** Sends a request to a path relative to the page, so that the page works under any prefix. */
export function ask(path, { headers = {}, ...options } = {}) {
  const bearer = token ? { authorization: `Bearer ${token}` } : {};
  return fetch(new URL(`../${path}`, import.meta.url), { cache: "no-store", ...options, headers: { ...headers, ...bearer } });
}
