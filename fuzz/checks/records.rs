//! Stored records: a record is valid only under the key that it was written for, and only if it is unchanged.

use vecho::cache::Record;
use vecho::cache::at_rest::{ChecksumKey, ChecksumKeys, Damaged, from_bytes, to_bytes};
use vecho::cache::purges::PurgeStamp;
use vecho::config::Secret;
use vecho::key::Key;

/// Length of a checksum, in bytes.
const CHECKSUM_BYTES: usize = 8;

/// Checks bytes as a record, and as the part of a record before its checksum.
pub(crate) fn check(bytes: &[u8]) {
    let key = [0x5a; 32];
    // Without a secret, the checksum is keyed with the cache key alone.
    let sum = blake3::keyed_hash(&key, bytes);
    let sealed = [bytes, &sum.as_bytes()[..CHECKSUM_BYTES]].concat();
    let checksum_key = of(&key, None);
    assert!(from_bytes(bytes, &checksum_key).is_err(), "a checksum by chance");
    let Ok((record, counts)) = from_bytes(&sealed, &checksum_key) else { return };
    read_back(&record, counts, &checksum_key);
    let place = usize::from_le_bytes(*sum.as_bytes().last_chunk().expect("a hash is longer"));
    let mut other_key = key;
    flip(&mut other_key, place);
    for wrong in [of(&other_key, None), of(&key, Some("secret"))] {
        assert_eq!(from_bytes(&sealed, &wrong).err(), Some(Damaged::Checksum));
    }
    let mut changed = sealed.clone();
    flip(&mut changed, place);
    for damaged in [&changed[..], &sealed[..place % sealed.len()], &[&sealed[..], &[0]].concat()] {
        assert!(from_bytes(damaged, &checksum_key).is_err());
    }
}

fn of(key: &[u8; 32], secret: Option<&str>) -> ChecksumKey {
    ChecksumKeys::new(secret.map(Secret::new).as_ref()).of(&Key::from_bytes(*key))
}

fn read_back(record: &Record, counts: PurgeStamp, checksum_key: &ChecksumKey) {
    let vector = record.vector.unpack();
    assert_eq!(vector.dimension(), record.identity.dimension);
    assert!(vector.components().all(f32::is_finite));
    let written = to_bytes(record, counts, checksum_key);
    let (read, read_counts) = from_bytes(&written, checksum_key).expect("a record of ours must be valid");
    assert_eq!((&read.vector, &read.identity, read.times), (&record.vector, &record.identity, record.times));
    assert_eq!((read.models(), read.tokens(), read_counts), (record.models(), record.tokens(), counts));
    assert_eq!(to_bytes(&read, counts, checksum_key), written);
}

/// Flips one bit.
fn flip(bytes: &mut [u8], place: usize) {
    let bit = place % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
}
