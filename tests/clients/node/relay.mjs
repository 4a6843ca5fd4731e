// A relay that keeps its port while the server behind it stops and starts again.

import net from "node:net";

export class Relay {
  #target = null;
  #open = new Set();
  #server = net.createServer((outside) => this.#pass(outside));

  static async start(url) {
    const relay = new Relay();
    relay.to(url);
    await new Promise((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    relay.url = `http://127.0.0.1:${relay.#server.address().port}`;
    return relay;
  }

  to(url) {
    this.#target = Number(new URL(url).port);
  }

  /** Closes every connection. Later ones are closed at once. */
  cut() {
    this.#target = null;
    for (const socket of this.#open) socket.destroy();
  }

  stop() {
    this.cut();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  #pass(outside) {
    if (this.#target === null) {
      outside.destroy();
      return;
    }
    const inside = net.connect(this.#target, "127.0.0.1");
    for (const [one, other] of [[outside, inside], [inside, outside]]) {
      this.#open.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        this.#open.delete(one);
        other.destroy();
      });
    }
  }
}
