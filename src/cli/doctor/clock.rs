//! The clock, compared with the upstream's.

use super::check::CheckResult;

const CHECK: &str = "clock";
/// Difference from which certificates, signatures and expiry times are at risk.
const MAX_SKEW_S: u64 = 5 * 60;

/// Judges the difference to the `date` of the upstream's answer.
pub(super) fn check(ahead_s: Option<i64>) -> CheckResult {
    let Some(ahead_s) = ahead_s else {
        return CheckResult::ok(CHECK, "not compared: no answer of the upstream has a date");
    };
    let (seconds, side) = (ahead_s.unsigned_abs(), if ahead_s < 0 { "behind" } else { "ahead of" });
    if seconds <= MAX_SKEW_S {
        return CheckResult::ok(CHECK, format!("within {seconds} s of the upstream's"));
    }
    let message =
        format!("{seconds} s {side} the upstream's: certificates may fail, and entries expire at other times");
    CheckResult::warning(CHECK, message, "set the clock, such as by NTP")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::check::CheckVerdict;

    #[test]
    fn a_clock_off_by_more_than_five_minutes_is_warned_of() {
        assert_eq!(check(Some(-300)).verdict, CheckVerdict::Ok);
        assert_eq!(check(None).verdict, CheckVerdict::Ok);
        let behind = check(Some(-301));
        assert_eq!(behind.verdict, CheckVerdict::Warning);
        assert!(behind.message.starts_with("301 s behind the upstream's"), "{behind}");
        assert!(check(Some(301)).message.starts_with("301 s ahead of the upstream's"));
    }
}
