//! Value of a lease in Redis: its holder, and how long a call of the holder usually takes.
//!
//! It holds no time of day, because the clocks of two machines differ.

use std::time::Duration;

use crate::cache::{ForeignLease, LeaseHolder, LeasedFetch};

/// Value of a lease whose holder has failed.
pub(super) const FAILED: &str = "failed";

/// Hexadecimal digits of the number of a process.
const TOKEN_DIGITS: usize = 32;

/// Returns the token of a process, with which the values of its leases begin.
pub(super) fn token(process: u128) -> String {
    format!("{process:0TOKEN_DIGITS$x}")
}

/// Returns the value of the leases of a fetch.
pub(super) fn write(fetch: LeasedFetch, call_time: Option<Duration>) -> String {
    let call_ms = call_time.map_or(0, |took| took.as_millis().max(1));
    format!("{}:{:x}:{call_ms}", token(fetch.process), fetch.number)
}

/// Reads the value of a lease that another fetch holds. Parts that cannot be read are unknown, because any client of
/// Redis can write a value.
pub(super) fn read(value: &[u8]) -> LeaseHolder {
    if value == FAILED.as_bytes() {
        return LeaseHolder::Failed;
    }
    LeaseHolder::Theirs(std::str::from_utf8(value).ok().and_then(foreign).unwrap_or_default())
}

fn foreign(value: &str) -> Option<ForeignLease> {
    let mut parts = value.split(':');
    let token = parts.next().filter(|token| token.len() == TOKEN_DIGITS)?;
    let process = u128::from_str_radix(token, 16).ok()?;
    let number = u64::from_str_radix(parts.next()?, 16).ok()?;
    // A longer call than any may take is no estimate.
    let call_ms = parts.next()?.parse::<u32>().ok().filter(|call_ms| *call_ms > 0);
    let call_time = call_ms.map(|call_ms| Duration::from_millis(call_ms.into()));
    Some(ForeignLease { fetch: Some(LeasedFetch { process, number }), call_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_names_its_fetch_and_the_usual_time_of_a_call() {
        let fetch = LeasedFetch { process: 0xab, number: 0x1f };
        for (call_time, expected) in [
            (None, None),
            (Some(Duration::from_millis(250)), Some(Duration::from_millis(250))),
            (Some(Duration::ZERO), Some(Duration::from_millis(1))),
        ] {
            let value = write(fetch, call_time);
            assert!(value.starts_with(&token(0xab)), "{value}");
            let lease = ForeignLease { fetch: Some(fetch), call_time: expected };
            assert_eq!(read(value.as_bytes()), LeaseHolder::Theirs(lease), "{value}");
        }
    }

    #[test]
    fn a_value_of_another_form_is_a_lease_of_an_unknown_fetch() {
        let token = token(1);
        for value in ["", ":", &token, &format!("{token}:x:1"), "1:2:3", &format!("{token}:1"), "\u{e4}:1:1"] {
            assert_eq!(read(value.as_bytes()), LeaseHolder::Theirs(ForeignLease::default()), "{value}");
        }
        assert_eq!(read(b"\xff\xfe"), LeaseHolder::Theirs(ForeignLease::default()));
        assert_eq!(read(FAILED.as_bytes()), LeaseHolder::Failed);
        let endless = format!("{token}:1:99999999999999");
        let LeaseHolder::Theirs(lease) = read(endless.as_bytes()) else { panic!("{endless}") };
        assert_eq!((lease.fetch.is_some(), lease.call_time), (true, None));
    }
}
