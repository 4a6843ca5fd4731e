//! Tests of incidents: their begin, continuation and end.

use super::*;
use crate::observe::metrics::Metrics;

const MOCKED: Incident<'static> =
    Incident { cause: "connection refused", model: "m", instead: Instead::Mocks, inputs: 2 };

fn note(metrics: &Metrics, now_ms: u64, incident: Incident<'_>) {
    metrics.incidents().note(now_ms, &incident);
}

#[test]
fn an_incident_is_shown_from_the_first_mock_until_a_minute_after_the_last() {
    let metrics = Metrics::new("0");
    let mocks = |now_ms| metrics.incidents().standing(now_ms).map(|standing| standing.mocks);
    assert_eq!(mocks(5), None);
    note(&metrics, 900, Incident { instead: Instead::Errors, ..MOCKED });
    assert_eq!(mocks(950), Some(None));
    note(&metrics, 1_000, MOCKED);
    note(&metrics, 50_000, MOCKED);
    assert_eq!(mocks(900_000), Some(Some(Period::Since(1_000))), "it stays active without traffic");
    metrics.incidents().end(51_000, "m");
    assert_eq!(mocks(60_000), Some(Some(Period::Until(50_000))));
    assert_eq!(mocks(110_000), None);
    note(&metrics, 120_000, Incident { instead: Instead::Stale, ..MOCKED });
    let standing = metrics.incidents().standing(120_001).expect("it is active");
    assert_eq!((standing.stale, standing.mocks), (Some(Period::Since(120_000)), None));
}

#[test]
fn an_upstream_that_flaps_is_one_incident() {
    let metrics = Metrics::new("0");
    for second in 0..60 {
        note(&metrics, second * 1_000, MOCKED);
        metrics.incidents().end(second * 1_000 + 500, "m");
    }
    let [incident] = &metrics.incidents().newest(9)[..] else { panic!("one incident") };
    assert_eq!((incident.counts.mock_inputs, incident.active), (120, false));
    note(&metrics, 69_500, MOCKED);
    assert_eq!(metrics.incidents().newest(9).len(), 2, "ten seconds after the end it is another one");
    let (_, text) = metrics.render();
    assert!(text.contains("vecho_incidents_total 2\n") && text.contains("vecho_incident_active 1\n"), "{text}");
}

#[test]
fn answers_of_a_healthy_model_do_not_end_the_incident_of_a_failing_one() {
    let metrics = Metrics::new("0");
    for second in 0..30 {
        note(&metrics, second * 1_000, Incident { model: "sick", ..MOCKED });
        metrics.incidents().end(second * 1_000 + 500, "well");
    }
    assert!(metrics.incidents().newest(1)[0].active);
    metrics.incidents().end(38_000, "well");
    assert!(metrics.incidents().newest(1)[0].active);
    metrics.incidents().end(39_000, "well");
    assert!(!metrics.incidents().newest(1)[0].active, "nothing has failed for ten seconds");
}

#[test]
fn a_report_lists_the_inputs_to_embed_again() {
    let metrics = Metrics::new("0");
    note(&metrics, 1_000, Incident { instead: Instead::Errors, cause: "timeout", ..MOCKED });
    note(&metrics, 2_000, MOCKED);
    note(&metrics, 3_000, Incident { model: "other-model", instead: Instead::Stale, ..MOCKED });
    note(&metrics, 4_000, MOCKED);
    for model in ["m", "other-model"] {
        metrics.incidents().end(5_000, model);
    }
    let report = metrics.incidents().newest(1).remove(0);
    assert_eq!((&*report.from, report.to.as_deref()), ("1970-01-01T00:00:01Z", Some("1970-01-01T00:00:05Z")));
    assert_eq!(report.cause, "connection refused", "the cause of the worst answers");
    let again = report.embed_again.expect("mocks were answered");
    assert_eq!((again.inputs, &*again.from, &*again.to), (4, "1970-01-01T00:00:02Z", "1970-01-01T00:00:04Z"));
    let models: Vec<_> = report.models.iter().map(|one| (&*one.model, one.counts.mock_inputs)).collect();
    assert_eq!(models, [("m", 4), ("other-model", 0)]);
    assert_eq!((report.counts.failed_requests, report.counts.stale_inputs), (1, 2));
}

#[test]
fn incidents_models_and_texts_are_bounded() {
    let metrics = Metrics::new("0");
    let long = "\u{e9}".repeat(1_000);
    for number in 0..100_u64 {
        for model in 0..100 {
            let model = format!("{model} {long}");
            note(
                &metrics,
                number * 100_000,
                Incident { cause: &long, model: &model, instead: Instead::Mocks, inputs: 1 },
            );
        }
        metrics.incidents().end(number * 100_000 + 20_000, "any");
    }
    let reports = metrics.incidents().newest(usize::MAX);
    assert_eq!(reports.len(), MAX_INCIDENTS);
    for report in reports {
        assert!(!report.active && report.models.len() == 17 && report.cause.len() < 310, "{report:?}");
        assert_eq!(report.models[16].counts.mock_inputs, 84, "further models are counted together");
        assert!(report.models.iter().all(|one| one.model.len() < 140));
    }
}

#[test]
fn health_lists_at_most_three_models() {
    let metrics = Metrics::new("0");
    for model in ["a", "b", "c", "d"] {
        note(&metrics, 1_000, Incident { model, ..MOCKED });
    }
    assert_eq!(
        metrics.incidents().standing(1_000).map(|standing| standing.models),
        Some(["a", "b", "c"].map(str::to_owned).to_vec())
    );
    assert_eq!(metrics.incidents().newest(1)[0].models.len(), 4);
}
