//! The part of a limit that one of several replicas uses.
//!
//! Each replica tells the others how much of the limit it would use, and computes its own part from all of that. No
//! replica gets more than it asks for while others lack something, and those that lack something get equal parts
//! (max-min fairness). The rest of the limit is divided equally, so that a replica may begin at once.

/// Part of an equal share that each replica has at least. It may make a call before the others know of it.
const LEAST: f64 = 0.05;

/// Returns the part for a replica that would use `own` of the limit, while others would use `others`. Amounts are parts
/// of the limit; they may exceed 1.
pub(super) fn share_of(own: f64, others: &[f64]) -> f64 {
    let replicas = others.len() + 1;
    let equal = 1.0 / count(replicas);
    let mut wanted: Vec<f64> = others.iter().chain([&own]).map(|wanted| wanted.clamp(LEAST * equal, 1.0)).collect();
    let sum: f64 = wanted.iter().sum();
    let own = own.clamp(LEAST * equal, 1.0);
    if sum <= 1.0 {
        return own + (1.0 - sum) * equal;
    }
    wanted.sort_by(f64::total_cmp);
    let mut left = 1.0;
    for (place, wanted) in wanted.iter().enumerate() {
        let most = left / count(replicas - place);
        if *wanted >= most {
            return own.min(most);
        }
        left -= wanted;
    }
    own
}

/// Returns the part of each of several replicas that do not know of one another's calls.
pub(super) fn equal_share(replicas: usize) -> f64 {
    1.0 / count(replicas.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "there are far less than 2^53 replicas")]
const fn count(replicas: usize) -> f64 {
    replicas as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the parts of all replicas.
    fn shares(wanted: &[f64]) -> Vec<f64> {
        let others =
            |own: usize| wanted.iter().enumerate().filter(move |(place, _)| *place != own).map(|(_, wanted)| *wanted);
        (0..wanted.len()).map(|own| share_of(wanted[own], &others(own).collect::<Vec<_>>())).collect()
    }

    #[test]
    fn a_replica_alone_has_the_whole_limit() {
        for own in [0.0, 0.3, 1.0, 7.0] {
            assert!((share_of(own, &[]) - 1.0).abs() < 1e-9, "{own}");
        }
    }

    #[test]
    fn replicas_that_lack_something_get_equal_parts() {
        let shares = shares(&[3.0, 0.1, 2.0, 0.2]);
        let expected = [0.35, 0.1, 0.35, 0.2];
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < 1e-9, "{shares:?}");
        }
    }

    #[test]
    fn what_is_left_is_divided_equally() {
        let shares = shares(&[0.3, 0.1]);
        assert!((shares[0] - 0.6).abs() < 1e-9 && (shares[1] - 0.4).abs() < 1e-9, "{shares:?}");
    }

    proptest! {
        #[test]
        fn the_parts_make_up_the_limit_and_are_fair(wanted in prop::collection::vec(0.0..5.0_f64, 1..120)) {
            let shares = shares(&wanted);
            let sum: f64 = shares.iter().sum();
            prop_assert!((0.94..1.0 + 1e-6).contains(&sum), "{sum}");
            for (one, wanted_by_one) in shares.iter().zip(&wanted) {
                // A replica that gets less than it wants has no less than any other, except for what all have left.
                let is_short = *one + 1e-9 < wanted_by_one.min(1.0);
                prop_assert!(!is_short || shares.iter().all(|other| *other <= one + 1e-9), "{shares:?} {wanted:?}");
            }
        }
    }
}
