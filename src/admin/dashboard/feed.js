// The way to the server: the history once, then events; and what the reader is told when neither comes.

/** Addresses beside this page, wherever it is mounted. */
export const address = (path) => new URL(`../${path}`, import.meta.url);

/** Events come every two seconds; after this long without one the connection is dead, whatever it says. */
const SILENCE_MS = 10_000;
const RETRY_MS = 2_000;

/** Follows the server for as long as the page lives. `on` has `whole`, `update` and `link`. */
export class Feed {
  #on;
  #events = null;
  #silence;
  #again;
  #draining = false;
  #link = "connecting";

  constructor(on) {
    this.#on = on;
    this.#connect();
  }

  /** Reads state and history anew. */
  async reload() {
    const answer = await fetch(address("api/dashboard"), { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    this.#on.whole(await answer.json());
  }

  #connect() {
    clearTimeout(this.#again);
    this.#events?.close();
    this.#events = new EventSource(address("api/events"));
    this.#events.addEventListener("open", () => this.#opened());
    this.#events.addEventListener("update", (event) => this.#updated(JSON.parse(event.data)));
    this.#events.addEventListener("error", () => this.#broken());
    this.#listen();
  }

  /** What was missed meanwhile is in the server's history. */
  async #opened() {
    try {
      await this.reload();
    } catch {
      // The next update is seen all the same, and a dead connection by its silence.
    }
  }

  #updated(update) {
    this.#listen();
    this.#draining = update.now.health.warnings.some((warning) => warning.startsWith("draining"));
    this.#say(this.#draining ? "draining" : "live");
    this.#on.update(update);
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#broken(), SILENCE_MS);
  }

  /** The browser's own repetition ends at the first answer that is no stream, so this one goes on. */
  async #broken() {
    clearTimeout(this.#silence);
    clearTimeout(this.#again);
    this.#events.close();
    this.#again = setTimeout(() => this.#connect(), RETRY_MS);
    if (this.#link !== "drained") this.#say(this.#draining ? "drained" : "reconnecting");
    if (await drains()) this.#say("drained");
  }

  #say(link) {
    if (link === this.#link) return;
    this.#link = link;
    this.#on.link(link);
  }
}

/** Whether the server says that it is on its way out. */
async function drains() {
  try {
    const answer = await fetch(address("readyz"), { cache: "no-store" });
    return answer.status === 503 && (await answer.json()).reason === "draining";
  } catch {
    return false;
  }
}
