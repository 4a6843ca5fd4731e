//! Tests of the catalogue against a scrape.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::*;

fn scrape() -> String {
    Metrics::new("1.2.3").render().1
}

fn values(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn a_scrape_holds_the_catalogue_and_nothing_else() {
    let metrics = Metrics::new("1.2.3");
    metrics.accounts().of("a model", "", "a model");
    let shown = ShownLimit { target: "a", model: "m", requests: Some((1.0, 1.0)), tokens: None, held: Duration::ZERO };
    metrics.pace.show(&[shown]);
    metrics.targets.begin(&["a"]);
    metrics.targets.compared(0, "a model", true);
    metrics.watch.checked(WatchResult::Same, "a model", 0.0);
    let budget = BudgetFigures { key: "a key", namespace: String::new(), limit: 2.0, spent: 1.0 };
    metrics.budget.show(&[budget]);
    let text = metrics.render().1;
    let shown: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(Into::into).collect();
    let known: BTreeSet<String> =
        CATALOGUE.iter().map(|family| format!("{} {}", family.name, family.kind.name())).collect();
    assert_eq!(shown, known);
    for family in CATALOGUE {
        assert!(text.contains(&format!("# HELP {} {}\n", family.name, family.help)), "{}", family.name);
    }
}

#[test]
fn every_counter_starts_at_zero_for_every_label_value() {
    let text = scrape();
    let ours = |family: &&Family| family.kind == Kind::Counter && family.name.starts_with("vecho_");
    for family in CATALOGUE.iter().filter(ours) {
        for series in every_series(family) {
            assert_eq!(values(&text, &series), Some(0.0), "{series}");
        }
    }
}

/// Returns all label combinations in Prometheus's format: sorted by name.
fn every_series(family: &Family) -> Vec<String> {
    let mut labels = family.labels.to_vec();
    labels.sort_by_key(|label| label.name);
    let mut combinations = vec![String::new()];
    for label in labels {
        combinations = combinations
            .iter()
            .flat_map(|before| label.values.iter().map(move |value| (before, value)))
            .map(|(before, value)| {
                format!("{before}{}{}=\"{value}\"", if before.is_empty() { "" } else { "," }, label.name)
            })
            .collect();
    }
    let braced = |pairs: &String| if pairs.is_empty() { String::new() } else { format!("{{{pairs}}}") };
    combinations.iter().map(|pairs| format!("{}{} ", family.name, braced(pairs))).collect()
}

#[test]
fn the_version_is_a_label_of_build_info() {
    assert_eq!(values(&scrape(), "vecho_build_info{version=\"1.2.3\"} "), Some(1.0));
}

#[test]
fn a_request_is_counted_timed_and_fed_to_performance() {
    let metrics = Metrics::new("0");
    for (route, outcome) in [(Route::Embeddings, Outcome::Mock), (Route::Passthrough, Outcome::Unavailable)] {
        let elapsed = std::time::Duration::from_millis(3);
        metrics.requests.ended(Ended {
            route,
            outcome,
            status: Some(200),
            begun: Instant::now(),
            elapsed,
            subject: None,
        });
    }
    let text = metrics.render().1;
    assert_eq!(values(&text, "vecho_requests_total{outcome=\"mock\",route=\"embeddings\"} "), Some(1.0));
    let bucket = "vecho_request_duration_seconds_bucket{outcome=\"mock\",route=\"embeddings\",le=\"0.005\"} ";
    assert_eq!(values(&text, bucket), Some(1.0));
    let performance = metrics.performance().snapshot();
    assert_eq!(performance.total_requests, 2);
    assert!((performance.error_rate - 0.5).abs() < f64::EPSILON);
}

#[test]
fn every_bypass_reason_has_a_counter_of_its_own() {
    let metrics = Metrics::new("0");
    for reason in Bypass::ALL {
        metrics.requests.bypass(*reason);
    }
    let text = metrics.render().1;
    for reason in Bypass::ALL {
        let series = format!("vecho_bypass_total{{reason=\"{}\"}} ", reason.label());
        assert_eq!(values(&text, &series), Some(1.0));
    }
}

#[test]
fn a_gauge_guard_decrements_on_drop() {
    let metrics = Metrics::new("0");
    let held = metrics.upstream.in_flight.enter();
    assert_eq!(metrics.upstream.in_flight.get(), 1);
    drop(held);
    assert_eq!(metrics.upstream.in_flight.get(), 0);
}

#[test]
fn hooks_run_before_each_scrape_and_evictions_never_decrease() {
    let metrics = Metrics::new("0");
    metrics.on_scrape(Box::new(|metrics| {
        let stats = TierStats { entries: 3, bytes: 9, capacity_bytes: 20, evictions: 7, ..TierStats::default() };
        metrics.tiers.set(Tier::Memory, &stats);
    }));
    for _ in 0..2 {
        let text = metrics.render().1;
        assert_eq!(values(&text, "vecho_cache_entries{tier=\"memory\"} "), Some(3.0));
        assert_eq!(values(&text, "vecho_cache_capacity_bytes{tier=\"memory\"} "), Some(20.0));
        assert_eq!(values(&text, "vecho_cache_evictions_total{tier=\"memory\"} "), Some(7.0));
    }
}

#[test]
fn metrics_show_the_breaker_state_and_how_often_it_opened() {
    let metrics = Metrics::new("0");
    for state in [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Open] {
        metrics.upstream.breaker.set(state);
    }
    let text = metrics.render().1;
    assert_eq!(values(&text, "vecho_upstream_breaker_state "), Some(2.0));
    assert_eq!(values(&text, "vecho_upstream_breaker_opened_total "), Some(2.0));
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_is_measured_at_each_scrape() {
    let text = scrape();
    for name in [
        "process_resident_memory_bytes ",
        "process_virtual_memory_bytes ",
        "process_threads ",
        "process_open_fds ",
        "process_max_fds ",
        "process_start_time_seconds ",
    ] {
        assert!(values(&text, name).is_some_and(|value| value > 0.0), "{name}");
    }
}
