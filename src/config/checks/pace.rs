//! Checks of `[pace]` and `[priority]`.

use crate::config::reader::Reader;
use crate::config::{PaceConfig, PaceMode, PriorityConfig, TargetConfig};

/// The keys of limits.
const LIMITS: [&str; 3] = ["pace.requests_per_minute", "pace.tokens_per_minute", "pace.concurrent"];

pub(super) fn pace(reader: &mut Reader, targets: &[TargetConfig]) -> PaceConfig {
    let modes = [PaceMode::Auto, PaceMode::Off].map(|mode| (mode.name(), mode));
    let [requests, tokens, concurrent] = LIMITS;
    let pace = PaceConfig {
        mode: reader.choice("pace.mode", &modes),
        requests_per_minute: reader.optional_count(requests, 1..=1_000_000_000),
        tokens_per_minute: reader.optional_count(tokens, 1..=1_000_000_000_000),
        concurrent: reader.optional_count(concurrent, 1..=10_000),
        shared: reader.switch("pace.shared"),
    };
    if pace.shared && !reader.is_set("redis.url") {
        reader.fault("pace.shared", "needs redis.url, the Redis by which the replicas share");
    }
    for key in LIMITS {
        if !reader.is_set(key) {
            continue;
        }
        if pace.mode == PaceMode::Off {
            reader.fault(key, "contradicts pace.mode = \"off\"; remove one of the two");
        }
        if !targets.is_empty() {
            reader.fault(key, "limits the only upstream, but there are [[targets]]: set the limits in each of them");
        }
    }
    pace
}

pub(super) fn priority(reader: &mut Reader) -> PriorityConfig {
    PriorityConfig { bulk_from: reader.count("priority.bulk_from", 1..=1_000_000) }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn limits_are_read() {
        let pairs = [("pace.requests_per_minute", "3_000"), ("pace.tokens_per_minute", "1_000_000")];
        let pace = Config::from_pairs(&pairs).expect("must be free of faults").pace;
        assert_eq!((pace.requests_per_minute, pace.tokens_per_minute), (Some(3_000), Some(1_000_000)));
        assert_eq!(pace.concurrent, None);
    }

    #[test]
    fn contradictions_are_faults() {
        let targets = r#"[{"name":"a","url":"http://h/v1","api_key":"k"}]"#;
        for (pairs, word) in [
            (&[("pace.mode", "off"), ("pace.concurrent", "4")][..], "contradicts pace.mode"),
            (&[("pace.requests_per_minute", "5"), ("targets", targets)], "set the limits in each"),
            (&[("pace.requests_per_minute", "0")], "0 is not between 1"),
            (&[("pace.mode", "fast")], "pace.mode"),
            (&[("pace.shared", "true")], "needs redis.url"),
            (&[("priority.bulk_from", "0")], "0 is not between 1"),
        ] {
            let faults = Config::from_pairs(pairs).unwrap_err().to_string();
            assert!(faults.contains(word), "{word}:\n{faults}");
        }
    }
}
