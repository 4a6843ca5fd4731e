// What the page can change: always after a confirmation, and always with a word on what came of it.

import { byId, element, write } from "./dom.js";
import { count, number } from "./format.js";
import { ask, useToken } from "./server.js";

/** Longer than a purge of a large disk takes; nobody is kept before a dialog for ever. */
const PATIENCE_MS = 60_000;

async function call(method, path, body) {
  const headers = body ? { "content-type": "application/json" } : {};
  const answer = await ask(path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(PATIENCE_MS) });
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  const refusal = new Error(said.error?.message ?? `The server answered with status ${answer.status}.`);
  refusal.forbidden = answer.status === 403;
  throw refusal;
}

let asked = 0;

/**
 * The dialog stays while the work is done, and cannot be cancelled then: the work goes on anyway. `question` has `title`,
 * `text`, `yes`, and may have `more` and `danger`.
 */
function confirm(question, work) {
  const [dialog, yes, no] = ["confirm", "confirm-yes", "confirm-no"].map(byId);
  const own = (asked += 1);
  write(byId("confirm-title"), question.title);
  write(byId("confirm-text"), question.text);
  write(byId("confirm-more"), question.more ?? "");
  write(yes, question.yes);
  yes.className = question.danger ? "button danger full" : "button full";
  yes.disabled = no.disabled = false;
  dialog.oncancel = (event) => {
    if (no.disabled) event.preventDefault();
  };
  no.onclick = () => dialog.close();
  yes.onclick = async () => {
    yes.disabled = no.disabled = true;
    write(yes, "Working…");
    const locked = await carryOut(work);
    // Browsers close a dialog after all if somebody insists: then it may ask something else by now.
    if (own === asked) dialog.close();
    if (locked) byId("token-value").focus();
  };
  dialog.showModal();
}

function tell(level, text) {
  const outcome = byId("action-outcome");
  outcome.hidden = false;
  outcome.dataset.level = level;
  write(outcome, text);
}

/** Says what came of it (`work` gives the words, and its level where all is not well), and whether the token is wanted. */
async function carryOut(work) {
  try {
    const [text, level = "good"] = [await work()].flat();
    tell(level, text);
    return false;
  } catch (error) {
    const lost = error instanceof TypeError || error.name === "TimeoutError";
    tell("error", lost ? "No answer from the server: whether it was done is not known." : `Not done: ${error.message}`);
    return error.forbidden === true;
  }
}

function purge() {
  const [model, tier] = [byId("purge-model").value.trim(), byId("purge-tier").value];
  const what = `${model ? `every entry of the model ${model}` : "every entry"} in ${tier ? `the tier ${tier}` : "all tiers"}`;
  const question = {
    title: model || tier ? "Purge these entries?" : "Purge the whole cache?",
    text: `This drops ${what}. It cannot be undone.`,
    more: "Requests go on. What is asked for again is fetched from the upstream, waited for, and paid for.",
    yes: "Purge",
    danger: true,
  };
  confirm(question, async () => {
    const wanted = new URLSearchParams();
    if (model) wanted.set("model", model);
    if (tier) wanted.set("tier", tier);
    const { purged_entries: purged, warning } = await call("DELETE", `api/performance/cache${wanted.size ? `?${wanted}` : ""}`);
    const done = `Purged: ${count(purged, "entry", "entries")}, of ${model || "all models"}, in ${tier || "all tiers"}.`;
    return warning ? [`${done} ${warning}`, "warn"] : done;
  });
}

function optimize() {
  const target = byId("optimize-target").valueAsNumber;
  const named = Number.isFinite(target);
  const question = {
    title: "Give memory back?",
    text: `This frees memory until the process takes ${named ? `at most ${number(target)} MB` : "at most 80 % of its limit"}, as far as that can be done.`,
    more: "Freed pages go back first; then rendered answers are dropped, then vectors.",
    yes: "Optimize",
  };
  confirm(question, async () => {
    const done = await call("POST", "api/performance/optimize-memory", named ? { target_memory_mb: target } : undefined);
    if (!done.optimization_needed) return `Nothing to do: ${number(done.current_memory_mb)} MB is within ${number(done.target_memory_mb)} MB.`;
    return `Given back: ${number(done.memory_saved_mb)} MB. Now ${number(done.current_memory_mb)} MB, the target is ${number(done.target_memory_mb)} MB.`;
  });
}

function setLevel() {
  const level = byId("log-level-choice").value;
  const chatty = level === "debug" || level === "trace";
  const question = {
    title: `Log at the level ${level}?`,
    text: "This holds until the next start or reload of the configuration.",
    more: chatty ? "Expect many lines for each request." : "",
    yes: `Set ${level}`,
  };
  confirm(question, async () => {
    const { level: now, previous } = await call("PUT", "api/log-level", { level });
    return `The log level is ${now} now; it was ${previous}.`;
  });
}

function takeToken(value) {
  useToken(value);
  byId("token-value").value = "";
  byId("token-forget").hidden = !value;
  write(byId("token-note"), value ? "in use, until this page is closed" : "needed where the server has one");
}

export function actions() {
  const handlers = { purge, optimize, "log-level": setLevel, token: () => takeToken(byId("token-value").value.trim()) };
  for (const [id, handle] of Object.entries(handlers)) {
    byId(id).addEventListener("submit", (event) => {
      event.preventDefault();
      handle();
    });
  }
  byId("token-forget").addEventListener("click", () => takeToken(""));
}

let level = null;

/** Offers what there is: models, tiers, and the level in force. */
export function offer({ stats, log_level }) {
  options(byId("purge-models"), [...new Set(stats.savings.models.map(({ model }) => model))].filter((model) => model !== "other"));
  const tiers = Object.keys(stats.embedding_cache.tiers ?? {});
  options(byId("purge-tier"), tiers, element("option", { value: "" }, "all tiers"));
  if (log_level === level) return;
  level = log_level;
  const choice = byId("log-level-choice");
  // It may be a filter, or off, which are not on the list.
  if (![...choice.options].some(({ value }) => value === log_level)) choice.append(element("option", {}, log_level));
  choice.value = log_level;
}

/** Leaves a list alone that holds the same already: somebody may be choosing. */
function options(list, values, ...first) {
  const offered = [...list.children].slice(first.length).map(({ value }) => value);
  if (offered.join("\n") === values.join("\n")) return;
  const chosen = list.value;
  list.replaceChildren(...first, ...values.map((value) => element("option", { value }, value)));
  if (chosen !== undefined && values.includes(chosen)) list.value = chosen;
}
