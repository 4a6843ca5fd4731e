// Connection to the server: the history once, then events, and the connection state for the user.
//
// Events are read with `fetch`, since the browser's `EventSource` cannot send a token.

import { anotherToken, ask, hasToken } from "./server.js";

/** Events arrive every two seconds. A connection without one for this long is considered dead. */
const SILENCE_MS = 10_000;
/** A day of history needs a longer timeout on a slow connection. */
const WHOLE_MS = 60_000;
const RETRY_MS = 2_000;

/** Follows the server until the page closes. `on` has `whole`, `update` and `link`. */
export class Feed {
  #on;
  #link = "connecting";
  #silence;

  constructor(on) {
    this.#on = on;
    this.#follow();
  }

  /** Reads state and history again. */
  async reload(signal = AbortSignal.timeout(WHOLE_MS)) {
    const answer = await ask("api/dashboard", { signal });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    this.#on.whole(await answer.json());
  }

  async #follow() {
    for (;;) {
      const gone = new AbortController();
      const refused = await this.#stream(gone).catch(() => null);
      clearTimeout(this.#silence);
      gone.abort();
      if (refused === 403) {
        this.#say(hasToken() ? "refused" : "locked");
        await anotherToken();
      } else {
        await this.#lost(refused);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  /** Reads events until the connection ends. Returns the status if the server rejects the request. */
  async #stream(gone) {
    this.#listen(gone);
    const answer = await ask("api/events", { signal: gone.signal });
    if (!answer.ok) return answer.status;
    // The server's history contains the events missed before this connection.
    this.#listen(gone, WHOLE_MS);
    await this.reload(gone.signal);
    this.#listen(gone);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return null;
      this.#listen(gone);
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) this.#take(event);
    }
  }

  #take(event) {
    const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
    if (!data.length) return;
    const update = JSON.parse(data.join("\n"));
    this.#say(update.now.health.warnings.some((warning) => warning.startsWith("draining")) ? "draining" : "live");
    this.#on.update(update);
  }

  #listen(gone, timeout = SILENCE_MS) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => gone.abort(), timeout);
  }

  async #lost(refused) {
    const leaving = this.#link === "draining" || this.#link === "drained" || (await drains());
    if (leaving) this.#say("drained");
    else this.#say(refused === 503 ? "full" : "reconnecting");
  }

  #say(link) {
    if (link === this.#link) return;
    this.#link = link;
    this.#on.link(link);
  }
}

/** Returns true if the server reports that it is shutting down. */
async function drains() {
  try {
    const answer = await ask("readyz");
    return answer.status === 503 && (await answer.json()).reason === "draining";
  } catch {
    return false;
  }
}
