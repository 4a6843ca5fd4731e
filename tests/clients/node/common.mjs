// Shared parts of the client scripts for Node: addresses, control of the upstream, and output.

export const { BASE_URL, CONTROL_URL } = process.env;
export const KEY = "sk-test";
export const [SMALL, TINY] = ["text-embedding-3-small", "tiny"];

/** Queues behaviours for the upstream's next calls. */
export async function failNext(...behaviours) {
  const answer = await fetch(`${CONTROL_URL}/__control`, { method: "POST", body: JSON.stringify({ next: behaviours }) });
  if (!answer.ok) throw new Error(await answer.text());
}

/** Returns the number of inputs that the upstream has received. */
async function inputsSent() {
  const calls = await (await fetch(`${CONTROL_URL}/__calls`)).json();
  return calls.reduce((sum, call) => sum + call.inputs, 0);
}

/** Runs the sequence twice and prints it, with the inputs that the cacheable part of each round sent upstream. */
export async function twoRounds(cacheable, rest) {
  const rounds = [];
  const cacheable_inputs_sent = [];
  for (const round of [1, 2]) {
    const before = await inputsSent();
    const results = await cacheable();
    cacheable_inputs_sent.push((await inputsSent()) - before);
    rounds.push({ cacheable: results, ...(await rest(round)) });
  }
  process.stdout.write(JSON.stringify({ rounds, cacheable_inputs_sent }));
}
