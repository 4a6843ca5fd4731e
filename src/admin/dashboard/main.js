// The page: receives the feed and draws it while the tab is visible.

import { actions, offer } from "./actions.js";
import { Charts } from "./charts.js";
import { crosshair } from "./chart.js";
import { byId, remembered, write } from "./dom.js";
import { Feed } from "./feed.js";
import { duration, time } from "./format.js";
import { headline, lost, warn } from "./headline.js";
import { History } from "./history.js";
import { MemoryPanel, RecentPanel, batches, budgets, bypasses, incidents, models, outcomes, rateLimits, standIns, targets, tiers, upstream } from "./panels.js";

const LINKS = {
  connecting: ["none", "connecting"],
  live: ["good", "live"],
  draining: ["warn", "draining"],
  reconnecting: ["error", "reconnecting"],
  drained: ["error", "drained"],
  full: ["error", "too many pages are open"],
  locked: ["error", "token needed"],
  refused: ["error", "token refused"],
};
/** Only the whole history contains coarse samples, so it is read at this interval while they are shown. */
const COARSE_MS = 60_000;

const history = new History();
const memory = new MemoryPanel();
const recent = new RecentPanel();
const charts = new Charts(memory.chart);
let now = null;

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

function draw() {
  if (!now || document.hidden) return;
  const window = history.window(Number(chosen("range")), now.at_ms);
  headline(now, history);
  write(byId("latency-of-each"), window.together ? `highest in each ${duration(window.step)}` : "");
  charts.draw(window, chosen("latency-of"), now.memory.limit_bytes);
  standIns(window);
  incidents(now);
  bypasses(now);
  outcomes(now);
  upstream(now, window);
  batches(now);
  memory.show(now);
  tiers(now);
  targets(now);
  rateLimits(now);
  budgets(now);
  models(now);
  offer(now);
}

function take(state) {
  now = state;
  // Warnings are updated in a hidden tab too, since its title is visible.
  warn(now, history);
  draw();
}

const feed = new Feed({
  whole({ now: state, history: samples, recent: entries }) {
    const same = now?.started_ms === state.started_ms;
    history.load(samples, same);
    recent.replace(entries, same);
    // Events may arrive before this response.
    take(same && now.at_ms > state.at_ms ? now : state);
  },
  update({ now: state, sample, recent: entries }) {
    if (sample) history.add(sample);
    recent.add(entries);
    take(state);
  },
  link(link) {
    const [level, words] = LINKS[link];
    document.body.dataset.link = link;
    byId("link").dataset.level = level;
    write(byId("link"), words);
    if (level === "error") lost(now, words);
    byId("locked").hidden = link !== "locked" && link !== "refused";
  },
});

/** Restores and stores a choice among radio buttons in this browser. */
function choice(name) {
  const known = remembered.get(name);
  const input = known && document.querySelector(`input[name="${name}"][value="${CSS.escape(known)}"]`);
  if (input) input.checked = true;
  byId(name).addEventListener("change", () => {
    remembered.set(name, chosen(name));
    refresh().catch(() => {});
    draw();
  });
}

async function refresh() {
  if (!document.hidden && History.isCoarse(Number(chosen("range")))) await feed.reload();
}

const THEMES = [null, "light", "dark"];

function themes() {
  const button = byId("theme");
  const root = document.documentElement;
  const say = () => {
    const theme = root.dataset.theme;
    write(button, `\u25d0 ${theme ?? "auto"}`);
    button.setAttribute("aria-label", `Theme: ${theme ?? "as the system"}`);
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? null) + 1) % THEMES.length];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    remembered.set("theme", next);
    say();
  });
  say();
}

crosshair.addEventListener("move", () => write(byId("moment"), crosshair.at === null ? "" : `values at ${time(crosshair.at)}`));
document.addEventListener("read", ({ detail }) => write(byId("spoken"), detail));
document.addEventListener("visibilitychange", () => {
  refresh().catch(() => {});
  draw();
});
setInterval(() => refresh().catch(() => {}), COARSE_MS);
choice("range");
choice("latency-of");
themes();
actions();
