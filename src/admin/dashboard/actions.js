// Actions of the page. Each one needs a confirmation and reports its result.

import { byId, element, write } from "./dom.js";
import { count, number } from "./format.js";
import { ask, useToken } from "./server.js";

/** Timeout of an action, longer than the purge of a large disk. The dialog cannot be cancelled before it. */
const TIMEOUT_MS = 60_000;

async function call(method, path, body) {
  const headers = body ? { "content-type": "application/json" } : {};
  const answer = await ask(path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(TIMEOUT_MS) });
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  const refusal = new Error(said.error?.message ?? `The server answered with status ${answer.status}.`);
  refusal.forbidden = answer.status === 403;
  throw refusal;
}

let asked = 0;

/**
 * Opens a confirmation dialog. It cannot be cancelled while the work runs, since the work would continue anyway.
 * `question` has `title`, `text` and `yes`, and optionally `more` and `danger`.
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
    // A user can still force a browser to close the dialog, which may then show another question by now.
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

/** Runs `work` and shows its result: a text, and a level unless it is good. Returns true if the token is required. */
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

/** Fills the lists of models, tiers and log levels. */
export function offer({ stats, log_level }) {
  options(byId("purge-models"), [...new Set(stats.savings.models.map(({ model }) => model))].filter((model) => model !== "other"));
  const tiers = Object.keys(stats.embedding_cache.tiers ?? {});
  options(byId("purge-tier"), tiers, element("option", { value: "" }, "all tiers"));
  if (log_level === level) return;
  level = log_level;
  const choice = byId("log-level-choice");
  // The current level may be a filter or `off`, which the list does not contain.
  if (![...choice.options].some(({ value }) => value === log_level)) choice.append(element("option", {}, log_level));
  choice.value = log_level;
}

/** Replaces the options of a list only if they differ: the user may have the list open. */
function options(list, values, ...first) {
  const offered = [...list.children].slice(first.length).map(({ value }) => value);
  if (offered.join("\n") === values.join("\n")) return;
  const chosen = list.value;
  list.replaceChildren(...first, ...values.map((value) => element("option", { value }, value)));
  if (chosen !== undefined && values.includes(chosen)) list.value = chosen;
}
