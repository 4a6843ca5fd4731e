//! The dashboard in a real browser: it shows the figures of the server and asks for confirmation before each action.

use serde_json::{Value, json};

use crate::harness::script::{BROWSER, PAGE_MODULES};
use crate::harness::{Stub, Vecho};

const SETTINGS: &[(&str, &str)] = &[
    ("VECHO_BREAKER_FAILURES", "2"),
    ("VECHO_BREAKER_OPEN_FOR", "60s"),
    ("VECHO_BREAKER_MAX_OPEN", "60s"),
    ("VECHO_RETRY_MAX_ATTEMPTS", "1"),
];

/// Plays a scenario and checks that the page logs no error and sends no request to another host.
fn play(scenario: &str) -> Value {
    play_with(scenario, &[])
}

/// Like [`play`], with additional settings.
fn play_with(scenario: &str, settings: &[(&str, &str)]) -> Value {
    let report = play_with_troubles(scenario, settings);
    assert_eq!(report["complaints"], json!([]), "no error on the console, and none under the policy");
    report
}

/// Like [`play_with`], for scenarios in which requests of the page fail. Browsers log such failures on the console.
fn play_with_troubles(scenario: &str, settings: &[(&str, &str)]) -> Value {
    play_at(&Stub::start(), scenario, settings)
}

/// Like [`play_with_troubles`], with this upstream.
fn play_at(stub: &Stub, scenario: &str, settings: &[(&str, &str)]) -> Value {
    let vecho = Vecho::start_with(&stub.base_url(), &[SETTINGS, settings].concat());
    let mut command = BROWSER.command();
    command.env("BASE_URL", vecho.base_url()).env("CONTROL_URL", stub.root_url());
    command.env("OPS_URL", vecho.ops_url("")).env("PID", vecho.pid().to_string());
    command
        .env("SHOTS", concat!(env!("CARGO_MANIFEST_DIR"), "/target/dashboard"))
        .env("SCENARIO", scenario)
        .env("VECHO", env!("CARGO_BIN_EXE_vecho"));
    let report = BROWSER.report(command);
    assert_eq!(report["elsewhere"], json!([]), "everything comes from the ops port");
    let failed_request = "Failed to load resource";
    let complaints = report["complaints"].as_array().expect("complaints are a list").iter();
    let others: Vec<_> =
        complaints.filter(|text| !text.as_str().is_some_and(|text| text.starts_with(failed_request))).collect();
    assert!(others.is_empty(), "{others:?}");
    report
}

/// Checks for a part of a text. The page puts a non-breaking space between a figure and its unit.
fn contains(text: &Value, part: &str) -> bool {
    text.as_str().is_some_and(|text| text.replace('\u{a0}', " ").contains(part))
}

fn all_contain(texts: &Value, parts: &[&str]) {
    for (text, part) in texts.as_array().expect("a list of texts").iter().zip(parts) {
        assert!(contains(text, part), "{part:?} in {text}");
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Checks that the row begins with the server's values under these names.
fn assert_row(row: &Value, said: &Value, names: &[&str]) {
    for (index, name) in names.iter().enumerate() {
        assert!((number(&row[index]) - number(&said[name])).abs() < 1e-9, "{name}: {row} is not {said}");
    }
}

#[test]
fn dashboard_figures_equal_the_statistics() {
    let report = play("figures");
    let (stats, shown) = (&report["stats"], &report["figures"]);
    let (monitor, cache, savings) = (&stats["performance_monitor"], &stats["embedding_cache"], &stats["savings"]);
    assert_eq!(monitor["total_requests"], 42);
    assert!(number(&savings["cost_saved"]) > 0.0, "{savings}");
    for (name, value) in [
        ("total-requests", &monitor["total_requests"]),
        ("p50", &monitor["p50"]),
        ("hit-ratio", &cache["hit_ratio"]),
        ("tokens-saved", &savings["tokens_saved"]),
        ("cost-saved", &savings["cost_saved"]),
    ] {
        assert!((number(&shown[name]) - number(value)).abs() < 1e-12, "{name}: {} is not {value}", shown[name]);
    }
    assert_eq!(report["texts"]["total"], "42");
    assert_eq!(report["texts"]["tokens"], savings["tokens_saved"].to_string());
    assert_eq!(report["texts"]["ratio"], format!("{:.1}\u{a0}%", number(&cache["hit_ratio"]) * 100.0));
    let (model, tier) = (&savings["models"][0], &cache["tiers"]["memory"]);
    assert_row(&report["tables"]["models"], model, &["inputs", "requests", "tokens_billed", "tokens_saved"]);
    assert_row(&report["tables"]["memory"], tier, &["entries", "hits", "misses", "evictions", "dropped"]);
    let rows = report["tables"]["outcomes"].as_array().expect("rows");
    assert_eq!(rows.len(), stats["latency_ms"].as_object().map_or(0, serde_json::Map::len));
    for row in rows {
        let (name, figures) = (row["name"].as_str().expect("a name"), &row["figures"]);
        assert_row(figures, &stats["latency_ms"][name], &["count", "p50", "p95", "p99"]);
    }
    assert_eq!(report["recent"], 42);
    assert!(report["batches"].as_array().is_some_and(|bars| bars.iter().any(|bar| contains(bar, "1 inputs: "))));
}

#[test]
fn dashboard_charts_change_under_load() {
    let report = play("figures");
    let (idle, after) = (&report["idle"], &report["after"]);
    assert_eq!(idle["money"], "$0.00");
    assert!(contains(&idle["recent"], "No requests yet") && contains(&idle["models"], "No model"), "{idle}");
    for chart in ["sources", "upstream", "ratio", "requests", "latency", "tokens"] {
        assert_ne!(idle["charts"][chart]["path"], after[chart]["path"], "{chart}");
    }
    for chart in ["sources", "upstream", "requests", "tokens"] {
        assert_eq!((&idle["charts"][chart]["flat"], &after[chart]["flat"]), (&json!(true), &json!(false)), "{chart}");
    }
}

#[test]
fn a_page_reload_keeps_the_drawn_history() {
    let report = play("reload");
    let (before, after) = (&report["before"], &report["after"]);
    assert_eq!((&before["recent"], &before["now"]), (&after["recent"], &after["now"]));
    for (chart, drawn) in before["charts"].as_object().expect("charts") {
        let points = |drawn: &Value| drawn["points"].as_u64();
        assert!(points(&after["charts"][chart]) >= points(drawn) && drawn["points"] != 0, "{chart}: {report}");
    }
    assert_eq!(after["charts"]["sources"]["flat"], false);
}

#[test]
fn each_action_asks_for_confirmation_and_shows_its_result() {
    let report = play("actions");
    all_contain(&report["cancelled"], &["Purge the whole cache?", "Give memory back?", "Log at the level info?"]);
    assert_eq!(report["changes_when_cancelled"], json!([]), "who cancels changes nothing");
    assert_eq!(report["entries"], json!([5, 5, 2, 0, 0]), "before, cancelled, one model, one tier, all");
    all_contain(
        &report["by_model"],
        &["every entry of the model tiny in all tiers", "Purged: 3 entries, of tiny, in all tiers."],
    );
    all_contain(
        &report["by_tier"],
        &["every entry in the tier memory", "Purged: 2 entries, of all models, in memory."],
    );
    all_contain(&report["all"], &["every entry in all tiers", "Purged: "]);
    all_contain(&report["optimize"], &["at most 1 MB", "the target is 1 MB."]);
    all_contain(
        &report["log_level"],
        &["Log at the level debug?", "The log level is debug now; it was info.", "debug"],
    );
    let changes = json!(["DELETE ?model=tiny", "DELETE ?tier=memory", "DELETE ", "POST ", "PUT "]);
    assert_eq!(report["changes"], changes);
}

#[test]
fn a_pending_purge_shows_a_warning_and_cannot_be_cancelled_while_it_runs() {
    let report = play_with("pending", &[("VECHO_REDIS_URL", "redis://127.0.0.1:1")]);
    assert_eq!(report["under_way"], json!({"open": 1, "cancel": false}), "neither by the button nor by Escape");
    for words in ["Purged: ", "Redis has not accepted the purge yet"] {
        assert!(contains(&report["told"], words), "{words} in {report}");
    }
    assert_eq!(report["level"], "warn");
}

#[test]
fn an_outage_is_shown_in_a_banner() {
    let report = play("outage");
    assert_eq!((&report["calm"]["hidden"], &report["calm"]["title"]), (&json!(true), &json!("vecho")));
    for words in ["Mocks are being served.", "The breaker is open."] {
        assert!(contains(&report["banner"], words), "{words} in {}", report["banner"]);
    }
    assert_eq!(report["inView"], true, "wherever the reader has scrolled to");
    assert!(contains(&report["title"], "Mocks are being served"), "also in a tab behind others");
    assert_eq!((&report["breaker"], &report["health"]), (&json!("open"), &json!("degraded")));
}

#[test]
fn mocks_are_visible_at_any_share_with_cause_models_and_times() {
    let report = play("outage");
    assert!(number(&report["mockHeight"]) >= 4.0, "no hairline: {report}");
    assert!(report["standIns"].as_u64() > Some(0), "{report}");
    for words in ["4 inputs got a made-up vector since ", ", for tiny. Cause: ", "Embed these again"] {
        assert!(contains(&report["banner"], words), "{words} in {}", report["banner"]);
    }
    for words in ["goes on", "tiny", "4 inputs, "] {
        assert!(contains(&report["incident"], words), "{words} in {}", report["incident"]);
    }
    let mocks = &report["mocks"];
    assert_eq!((&mocks["figure"], &mocks["level"]), (&json!(4), &json!("error")));
    assert!(contains(&mocks["note"], "embed again"), "{mocks}");
    let calls = &report["upstreamCalls"];
    assert!(contains(&calls["facts"], "unavailable ") && contains(&calls["facts"], "p99"), "{calls}");
    assert!(
        contains(&calls["calls"], "unavailable ") && contains(&calls["times"], "Time of upstream calls"),
        "{calls}"
    );
}

#[test]
fn health_becomes_unknown_when_the_process_ends() {
    let report = play_with_troubles("gone", &[]);
    assert_eq!((&report["before"], &report["level"]), (&json!("healthy"), &json!("none")));
    let after = report["after"].as_str().expect("text");
    assert!(after.starts_with("unknown since ") && after.matches(':').count() == 2, "{after}");
    assert!(contains(&report["title"], "reconnecting"), "{report}");
}

#[test]
fn requests_that_were_not_cached_are_shown_by_reason() {
    let report = play("bypassed");
    assert!(contains(&report["none"], "Every embeddings request could be cached"));
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 1, "{report}");
    assert!(contains(&rows[0], "unknown_field") && contains(&rows[0], "3"), "{report}");
}

#[test]
fn targets_are_shown_with_calls_share_failures_and_state() {
    let stubs = [Stub::start(), Stub::start()];
    let target = |place: usize| json!({"name": (["a", "b"][place]), "url": stubs[place].base_url(), "api_key": "sk"});
    let targets = json!([target(0), target(1)]).to_string();
    let report = play_at(&stubs[0], "several", &[("VECHO_TARGETS", &targets)]);
    assert_eq!(report["complaints"], json!([]));
    let rows = report["rows"].as_array().expect("rows");
    let figures = report["targets"].as_array().expect("figures");
    assert_eq!((rows.len(), figures.len()), (2, 2), "{report}");
    for (row, target) in rows.iter().zip(figures) {
        assert_eq!((&row[0], &row[1]), (&target["name"], &target["state"]), "{report}");
        assert!(contains(&row[2], &format!("{:.1} %", number(&target["share"]) * 100.0)), "{report}");
        for (cell, name) in [(3, "calls"), (4, "failures"), (5, "moves")] {
            assert_eq!(row[cell], json!(target[name].to_string()), "{name} in {report}");
        }
    }
    assert_eq!((&figures[0]["state"], &figures[1]["state"]), (&json!("limits the rate"), &json!("serves")));
    assert_eq!((&figures[0]["failures"], &figures[0]["moves"]), (&json!(1), &json!(1)), "{report}");
}

#[test]
fn cards_of_targets_and_of_rate_limits_are_shown_only_if_there_are_any() {
    let report = play_with("single", &[("VECHO_PACE_MODE", "off")]);
    assert_eq!((&report["targets"], &report["limits"]), (&json!(false), &json!(false)));
    assert_eq!(play("single")["limits"], true, "the upstream reports its limits");
}

#[test]
fn rate_limits_are_shown_with_the_calls_that_wait_for_them() {
    // A sixth may be used at once, so the third call waits.
    let report = play_with("limited", &[("VECHO_PACE_REQUESTS_PER_MINUTE", "12")]);
    assert_eq!(report["before"], "free", "{report}");
    let waiting = report["waiting"].as_array().expect("a row");
    assert_eq!(waiting[1], "waits for requests", "{report}");
    assert_eq!(waiting[2], "0 left of 12 a minute", "{report}");
    assert!(contains(&waiting[3], "a minute"), "{report}");
    assert_eq!(waiting[4..], ["1", "0", "0"], "{report}");
}

#[test]
fn a_hostile_model_name_is_shown_as_plain_text() {
    let report = play("hostile");
    let (model, namespace) = (report["model"].as_str().expect("text"), report["namespace"].as_str().expect("text"));
    for place in ["models", "recent"] {
        assert!(contains(&report[place], model) && contains(&report[place], namespace), "{place}: {}", report[place]);
    }
    assert!(contains(&report["asked"], model) && contains(&report["outcome"], model));
    assert_eq!(report["offered"], json!([model]));
    assert_eq!((&report["hacked"], &report["made"]), (&Value::Null, &json!(0)));
}

#[test]
fn the_page_requires_the_token_and_does_not_store_it() {
    let report = play_with_troubles("token", &[("VECHO_ADMIN_TOKEN", "s3cret")]);
    assert!(contains(&report["locked"]["seen"], "admin token"));
    assert_eq!(report["locked"]["requests"], "–", "nothing is shown before");
    assert!(contains(&report["refused"]["said"], "Not done: "), "{report}");
    assert_eq!(report["refused"]["focus"], "token-value");
    assert!(contains(&report["done"], "Purged: 1 entry"), "{report}");
    assert_eq!(report["kept"], false, "the token is nowhere but in the page's memory");
}

#[test]
fn the_page_shows_a_lost_connection_and_resumes_after_a_restart() {
    let report = play_with_troubles("restart", &[]);
    assert_eq!(report["dimmed"], true, "what is not of now does not look so");
    let points = |when: &str| report[when]["sources"]["points"].as_u64();
    assert!(points("after") >= points("before"), "what was drawn before the restart stays: {report}");
    assert_eq!(report["after"]["sources"]["flat"], false);
    assert!(points("after") > Some(0), "{report}");
}

#[test]
fn the_page_can_be_used_with_the_keyboard() {
    let report = play("keyboard");
    assert!(
        contains(&report["read"], "Inputs per second by source, ") && contains(&report["read"], "memory "),
        "{report}"
    );
    assert!(contains(&report["moment"], "values at "));
    assert_eq!(report["crossed"], report["charts"], "all charts point at the same moment");
    assert_eq!((&report["cleared"], &report["nameless"]), (&json!(""), &json!([])));
    assert_eq!(report["focus"], "confirm-no", "Enter alone does no harm");
}

#[test]
fn the_page_fits_a_phone_and_has_two_themes() {
    let report = play("looks");
    let shots = report["report"].as_array().expect("screenshots");
    assert_eq!(shots.len(), 12, "idle, under load and in an outage; light and dark; wide and narrow");
    for shot in shots {
        assert_eq!(shot["beyond"], 0, "nothing to scroll sideways: {shot}");
        assert!(shot["bytes"].as_u64() > Some(10_000), "{shot}");
    }
    let ground = |theme: &str| shots.iter().find(|shot| shot["theme"] == theme).map(|shot| &shot["ground"]);
    assert_ne!(ground("light"), ground("dark"));
    let [light, dark] = ["light", "dark"].map(|theme| ground(theme).expect("a screenshot").clone());
    assert_eq!(report["themes"], json!([light, dark, dark]), "the system's, the one chosen, and after a reload");
}

#[test]
fn dashboard_figures_are_rounded_but_never_misleading() {
    let report = pure();
    assert_eq!(report["percent"], json!(["0\u{a0}%", "<\u{a0}0.1\u{a0}%", "50.0\u{a0}%", "99.9\u{a0}%", "100\u{a0}%"]));
    let compact = ["0", "0.126", "999", "9,999", "12.3\u{a0}k", "1\u{a0}M", "1.23\u{a0}M", "9.9\u{a0}B"];
    assert_eq!(report["compact"], json!(compact));
    let millis = ["\u{2013}", "0.012\u{a0}ms", "4.6\u{a0}ms", "123\u{a0}ms", "1.23\u{a0}s"];
    assert_eq!(report["millis"], json!(millis));
    assert_eq!(report["bytes"], json!(["0\u{a0}B", "1.5\u{a0}KB", "500\u{a0}MB", "1\u{a0}GB"]));
    assert_eq!(report["money"], json!(["$0.00", "<\u{a0}$0.01", "\u{20ac}12.30", "1.00\u{a0}no currency"]));
    let ticks =
        json!([[0, 0.25, 0.5, 0.75, 1], [0, 2, 4, 6, 8], [0, 50, 100, 150], [0, 200 << 20, 400 << 20, 600 << 20]]);
    assert_eq!(report["ticks"], ticks);
}

#[test]
fn dashboard_samples_survive_a_restart_and_are_aggregated() {
    let report = pure();
    assert_eq!(report["history"]["live"], json!([1, 2, 3]), "a sample that is known is not taken twice");
    assert_eq!(report["history"]["overtaken"], json!([1, 2, 3]), "nor lost, where the whole came later than it");
    assert_eq!(report["history"]["restarted"], json!([1, 2, 3, 7]));
    assert_eq!(report["runs"], json!([[0, 2, 4], [20, 22]]), "a time without samples is a gap, and no line");
    let times = &report["times"];
    for (window, points, together, inputs) in
        [("minutes", 60, false, 60), ("quarter", 21, true, 60), ("hours", 2, false, 130)]
    {
        let told = &times[window];
        assert_eq!((&told["points"], &told["together"]), (&json!(points), &json!(together)), "{window}: {told}");
        assert_eq!((&told["inputs"], &told["seconds"]), (&json!(inputs), &json!(120)), "{window}: {told}");
        assert_eq!(told["last"]["p99"], 59, "the highest percentile stands for all: {window}");
    }
}

fn pure() -> Value {
    let mut command = PAGE_MODULES.command();
    command.env("MODULES", concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/dashboard"));
    PAGE_MODULES.report(command)
}
