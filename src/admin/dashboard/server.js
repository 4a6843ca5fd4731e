// Requests to the server that this page came from, with the admin token where one was entered.

/** Lives as long as the page, and nowhere else. */
let token = "";
let wake = () => {};

/** Takes a token for all requests from now on; the empty one is none. */
export function useToken(value) {
  token = value;
  wake();
}

export const hasToken = () => token !== "";

/** Waits until a token is entered. */
export const anotherToken = () => new Promise((resolve) => (wake = resolve));

/** Asks for something beside this page, wherever that is mounted. */
export function ask(path, { headers = {}, ...options } = {}) {
  const bearer = token ? { authorization: `Bearer ${token}` } : {};
  return fetch(new URL(`../${path}`, import.meta.url), { cache: "no-store", ...options, headers: { ...headers, ...bearer } });
}
