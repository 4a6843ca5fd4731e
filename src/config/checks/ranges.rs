//! Ranges of values that several keys share.

use std::ops::RangeInclusive;
use std::time::Duration;

pub(super) const MIB: u64 = 1024 * 1024;
pub(super) const ANY_LENGTH: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24 * 3650);
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
pub(super) const ANY_BYTES: RangeInclusive<u64> = 1..=1 << 40;
pub(super) const ANY_COUNT: RangeInclusive<u64> = 1..=1_000_000;
