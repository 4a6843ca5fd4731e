//! A record as bytes.

use std::sync::Arc;

use super::{Record, Times};
use crate::key::{Key, KeyBuilder, Tag};
use crate::spaces::Identity;
use crate::vector::Vector;

/// These bytes are not a record, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a record")]
pub struct Damaged;

/// Bytes before the names.
const HEAD_BYTES: usize = 32 + 5 * 8 + 2;

/// A record as it is put at rest, with the epoch that it belongs to.
pub fn to_bytes(record: &Record, epoch: u64) -> Vec<u8> {
    let [answered, asked] = record.models();
    let mut rest = Vec::new();
    let times = &record.times;
    for number in
        [epoch, times.created_ms, times.fresh_until_ms, times.stale_until_ms, record.tokens().map_or(0, u64::from)]
    {
        rest.extend_from_slice(&number.to_le_bytes());
    }
    for name in [answered, asked] {
        rest.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    }
    rest.extend_from_slice(answered.as_bytes());
    rest.extend_from_slice(asked.as_bytes());
    rest.extend_from_slice(record.vector.as_le_bytes());
    [&checksum(&rest).as_bytes()[..], &rest].concat()
}

/// The record that [`to_bytes`] wrote, and its epoch.
pub fn from_bytes(bytes: &[u8]) -> Result<(Record, u64), Damaged> {
    let (head, names) = bytes.split_at_checked(HEAD_BYTES).ok_or(Damaged)?;
    if checksum(&bytes[32..]).as_bytes() != &head[..32] {
        return Err(Damaged);
    }
    let number = |place: usize| {
        let bytes = head[32 + place * 8..].first_chunk::<8>().ok_or(Damaged)?;
        Ok::<u64, Damaged>(u64::from_le_bytes(*bytes))
    };
    let lengths = [usize::from(head[HEAD_BYTES - 2]), usize::from(head[HEAD_BYTES - 1])];
    let (answered, rest) = names.split_at_checked(lengths[0]).ok_or(Damaged)?;
    let (asked, vector) = rest.split_at_checked(lengths[1]).ok_or(Damaged)?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(Arc::<str>::from).map_err(|_| Damaged);
    let vector = Vector::from_le_bytes(vector).map_err(|_| Damaged)?;
    let identity = Identity { model: text(answered)?, dimension: vector.dimension() };
    let times = Times { created_ms: number(1)?, fresh_until_ms: number(2)?, stale_until_ms: number(3)? };
    let tokens = u32::try_from(number(4)?).ok().filter(|tokens| *tokens > 0);
    Ok((Record::new(vector, identity, times, tokens).asked_as(&text(asked)?), number(0)?))
}

fn checksum(bytes: &[u8]) -> Key {
    KeyBuilder::new(None).part(Tag::Body, bytes).finish()
}
