//! Byte format of a record outside the process: on disk, in Redis and in exported files. `docs/design/packing.md` draws
//! the layout.
//!
//! The version comes first, so records of several versions can coexist and each reader recognizes its own. The
//! checksum covers all bytes before it and is keyed with the cache key, so a record is valid only under the key it
//! was written for.

use std::sync::Arc;

use super::purges::PurgeStamp;
use super::{Record, Times};
use crate::config::Secret;
use crate::key::Key;
use crate::learned::ModelIdentity;
use crate::vector::packed::{Form, NotPacked, Packed};

/// Magic bytes at the start of every version.
const MAGIC: [u8; 3] = *b"vec";

/// Format version of records whose key was never forgotten.
const VERSION: u8 = 2;

/// Format version with the count of the key, which follows the times. A record has it only if its key was forgotten
/// before, so all other records keep the form that every version of this program can read.
const VERSION_WITH_INPUT: u8 = 3;

/// Format version with the revision of the model, which follows the times. A record has it only if the vectors of its
/// model were once found to have changed. Programs that know no revisions take such a record for a miss.
const VERSION_WITH_REVISION: u8 = 4;

/// Format version with the revision of the model and the count of the key, in this order.
const VERSION_WITH_BOTH: u8 = 5;

/// Size of the fixed-length header, which ends before the model names.
const HEAD_BYTES: usize = 56;

/// Size of a checksum in bytes.
const CHECKSUM_BYTES: usize = 8;

/// Derives the key of each record's checksum.
#[derive(Clone, Default)]
pub struct ChecksumKeys(Option<[u8; 32]>);

/// Key of one record's checksum.
pub struct ChecksumKey([u8; 32]);

impl ChecksumKeys {
    /// Creates the keys. With a secret, a record can be neither forged nor moved to another key without knowing the
    /// secret.
    pub fn new(secret: Option<&Secret>) -> Self {
        let derive = |secret: &Secret| blake3::derive_key("vecho 2026 record checksum", secret.reveal().as_bytes());
        Self(secret.map(derive))
    }

    /// Returns the checksum key of the record that is stored under `key`.
    pub fn of(&self, key: &Key) -> ChecksumKey {
        let keyed = |secret: &[u8; 32]| *blake3::keyed_hash(secret, key.as_bytes()).as_bytes();
        // Without a secret, the cache key itself is the key of the checksum.
        ChecksumKey(self.0.as_ref().map_or(*key.as_bytes(), keyed))
    }
}

impl ChecksumKey {
    /// Computes the checksum of a record. The hash is keyed, so the key needs no second pass.
    fn checksum(&self, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let hash = blake3::keyed_hash(&self.0, body);
        *hash.as_bytes().first_chunk().expect("a hash must be longer than a checksum")
    }
}

/// Reason why bytes cannot be used as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Another program version wrote it. The bytes may be intact, but this version cannot read them.
    #[error("it is of version {0}, which is unknown here")]
    UnknownVersion(u8),
    /// It does not begin with the magic bytes of a record.
    #[error("it is no record")]
    NoRecord,
    /// It is shorter or longer than its header says.
    #[error("it has the wrong length")]
    Length,
    /// It has changed since it was written, or it was written for another key or with another `cache.key_secret`.
    #[error("its checksum is wrong: it has changed, or belongs to another key or cache.key_secret")]
    Checksum,
    /// Its checksum is right, but its fields contradict each other.
    #[error("it contradicts itself")]
    Contradiction,
    /// Its payload is not a valid vector.
    #[error("its vector is unusable: {0}")]
    Vector(#[from] NotPacked),
}

/// Encodes a record. Its purge counts are stored with it and returned by [`from_bytes`].
pub fn to_bytes(record: &Record, counts: impl Into<PurgeStamp>, checksum_key: &ChecksumKey) -> Vec<u8> {
    let counts = counts.into();
    let [model, asked_model] = record.models();
    // An empty name means the same name, so most records hold the name of their model once.
    let asked_model = if asked_model == model { "" } else { asked_model };
    let (vector, times) = (&record.vector, &record.times);
    let names = model.len() + asked_model.len();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + names + vector.payload().len() + CHECKSUM_BYTES);
    // The order of these writes is the file format, which `from_bytes` reads in the same order.
    bytes.extend_from_slice(&MAGIC);
    let version = match (record.identity.revision, counts.input) {
        (0, 0) => VERSION,
        (0, _) => VERSION_WITH_INPUT,
        (_, 0) => VERSION_WITH_REVISION,
        _ => VERSION_WITH_BOTH,
    };
    bytes.extend_from_slice(&[version, vector.form() as u8, 0, 0, 0]);
    bytes.extend_from_slice(&length(vector.dimension()));
    // Zero means that the tokens were not counted.
    bytes.extend_from_slice(&record.tokens().unwrap_or(0).to_le_bytes());
    for number in [counts.models, times.created_ms, times.fresh_until_ms, times.stale_until_ms] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for number in [record.identity.revision, counts.input].into_iter().filter(|number| *number > 0) {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&length(model.len()));
    bytes.extend_from_slice(&length(asked_model.len()));
    bytes.extend_from_slice(model.as_bytes());
    bytes.extend_from_slice(asked_model.as_bytes());
    bytes.extend_from_slice(vector.payload());
    bytes.extend_from_slice(&checksum_key.checksum(&bytes));
    bytes
}

/// Decodes a record, and returns it with its purge counts.
pub fn from_bytes(bytes: &[u8], checksum_key: &ChecksumKey) -> Result<(Record, PurgeStamp), Damaged> {
    let body = checked(bytes, checksum_key)?;
    let version = body[MAGIC.len()];
    let has_input = matches!(version, VERSION_WITH_INPUT | VERSION_WITH_BOTH);
    let has_revision = matches!(version, VERSION_WITH_REVISION | VERSION_WITH_BOTH);
    let mut rest = Rest(&body[MAGIC.len() + 1..]);
    let [form, zeros @ ..] = rest.take::<4>()?;
    // This version writes three zero bytes after the form, so any other value is an error of the writer.
    let form = Form::from_number(form).filter(|_| zeros == [0; 3]).ok_or(Damaged::Contradiction)?;
    let (dimension, tokens) = (rest.length()?, rest.u32()?);
    let models = rest.u64()?;
    let times = Times { created_ms: rest.u64()?, fresh_until_ms: rest.u64()?, stale_until_ms: rest.u64()? };
    let revision = if has_revision { rest.u64()? } else { 0 };
    let input = if has_input { rest.u64()? } else { 0 };
    let (model_len, asked_len) = (rest.length()?, rest.length()?);
    let (model, asked_model) = (rest.name(model_len)?, rest.name(asked_len)?);
    // A valid checksum proves only that the bytes are unchanged. The vector is validated like an answer of the
    // upstream.
    let vector = Packed::from_parts(form, dimension, rest.0)?;
    let record = Record::new(vector, ModelIdentity { model, dimension, revision }, times, Some(tokens));
    Ok((if asked_model.is_empty() { record } else { record.asked_as(&asked_model) }, PurgeStamp { models, input }))
}

/// Returns the bytes before the checksum after verifying the magic bytes, the version and the checksum.
fn checked<'b>(bytes: &'b [u8], checksum_key: &ChecksumKey) -> Result<&'b [u8], Damaged> {
    // The version is read before the checksum: another version may compute it differently and must not count as damage.
    match bytes.strip_prefix(&MAGIC).and_then(<[u8]>::first) {
        None => return Err(Damaged::NoRecord),
        Some(&(VERSION..=VERSION_WITH_BOTH)) => {}
        Some(other) => return Err(Damaged::UnknownVersion(*other)),
    }
    let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damaged::Length)?;
    if checksum_key.checksum(body) == *sum { Ok(body) } else { Err(Damaged::Checksum) }
}

fn length(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("a name or a dimension must be below 2^32").to_le_bytes()
}

/// Bytes that are not decoded yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damaged::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        self.take().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, Damaged> {
        self.u32().and_then(|number| usize::try_from(number).map_err(|_| Damaged::Length))
    }

    fn name(&mut self, bytes: usize) -> Result<Arc<str>, Damaged> {
        let (name, rest) = self.0.split_at_checked(bytes).ok_or(Damaged::Length)?;
        self.0 = rest;
        std::str::from_utf8(name).map(Arc::from).map_err(|_| Damaged::Contradiction)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vector::Vector;
    use crate::vector::packed::Codec;

    const TIMES: Times = Times { created_ms: 1, fresh_until_ms: 2, stale_until_ms: u64::MAX };

    fn record(components: &[f32], codec: Codec, asked_model: &str) -> Record {
        let vector = Packed::pack(&Vector::from_components(components).expect("it is a vector"), codec);
        let identity = ModelIdentity { model: "model-v2".into(), dimension: components.len(), revision: 0 };
        Record::new(vector, identity, TIMES, Some(7)).asked_as(&asked_model.into())
    }

    fn of_key(n: u8) -> ChecksumKey {
        ChecksumKeys::default().of(&Key::from_bytes([n; 32]))
    }

    fn to_bytes(record: &Record, counts: impl Into<PurgeStamp>) -> Vec<u8> {
        super::to_bytes(record, counts, &of_key(1))
    }

    fn from_bytes(bytes: &[u8]) -> Result<(Record, PurgeStamp), Damaged> {
        super::from_bytes(bytes, &of_key(1))
    }

    fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
        of_key(1).checksum(body)
    }

    /// Returns the parts of a record that must survive a round trip.
    fn shown(record: &Record) -> (Packed, ModelIdentity, [String; 2], Times, Option<u32>) {
        let models = record.models().map(str::to_owned);
        (record.vector.clone(), record.identity.clone(), models, record.times, record.tokens())
    }

    /// Changes a record and gives it a valid checksum, like a writer with a bug.
    fn forged(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut body = bytes[..bytes.len() - CHECKSUM_BYTES].to_vec();
        change(&mut body);
        let sum = checksum(&body);
        [&body[..], &sum].concat()
    }

    #[test]
    fn a_record_round_trips_in_every_codec() {
        for codec in [Codec::Lossless, Codec::Bf16, Codec::Int8, Codec::F32] {
            for asked_model in ["model", "model-v2", "modèle"] {
                let record = record(&[0.1, -0.25, 0.7], codec, asked_model);
                for (input, revision) in [(0, 0), (1 << 40, 0), (0, 1 << 41), (1 << 40, 1 << 41)] {
                    let counts = PurgeStamp { models: 99, input };
                    let identity = ModelIdentity { revision, ..record.identity.clone() };
                    let record =
                        Record::new(record.vector.clone(), identity, TIMES, Some(7)).asked_as(&asked_model.into());
                    let (read, read_counts) = from_bytes(&to_bytes(&record, counts)).expect("it is whole");
                    assert_eq!((shown(&read), read_counts), (shown(&record), counts));
                }
            }
        }
    }

    #[test]
    fn a_record_is_valid_under_its_own_key_and_secret_only() {
        let secrets = [None, Some(Secret::new("one")), Some(Secret::new("two"))];
        let keys = secrets.map(|secret| ChecksumKeys::new(secret.as_ref()));
        let of_each = |n| keys.iter().map(move |keys| keys.of(&Key::from_bytes([n; 32])));
        let all: Vec<ChecksumKey> = of_each(1).chain(of_each(2)).collect();
        for (n, written) in all.iter().enumerate() {
            let bytes = super::to_bytes(&record(&[0.1, 0.2], Codec::Lossless, "m"), 3, written);
            for (m, read) in all.iter().enumerate() {
                let expected = if n == m { None } else { Some(Damaged::Checksum) };
                assert_eq!(super::from_bytes(&bytes, read).err(), expected, "{n} {m}");
            }
        }
    }

    #[test]
    fn records_of_version_1_are_an_unknown_version() {
        let mut bytes = to_bytes(&record(&[0.1, 0.2], Codec::Lossless, "m"), 3);
        bytes[3] = 1;
        assert_eq!(from_bytes(&bytes).expect_err("it is older"), Damaged::UnknownVersion(1));
    }

    #[test]
    fn tokens_that_were_not_counted_stay_uncounted() {
        let record = record(&[1.0], Codec::F32, "m");
        record.set_tokens(0);
        assert_eq!(from_bytes(&to_bytes(&record, 0)).expect("it is whole").0.tokens(), None);
    }

    #[test]
    fn the_byte_layout_matches_the_documented_one() {
        let bytes = to_bytes(&record(&[1.0, 2.0], Codec::F32, "asked"), 0x0102);
        assert_eq!(&bytes[..16], b"vec\x02\x00\0\0\0\x02\0\0\0\x07\0\0\0");
        assert_eq!(&bytes[16..26], b"\x02\x01\0\0\0\0\0\0\x01\0");
        assert_eq!(&bytes[48..56], b"\x08\0\0\0\x05\0\0\0");
        assert_eq!(&bytes[56..77], b"model-v2asked\0\0\x80\x3f\0\0\0\x40");
        assert_eq!(bytes.len(), 77 + 8);
        let same = to_bytes(&record(&[1.0, 2.0], Codec::F32, "model-v2"), 0);
        assert_eq!(&same[48..56], b"\x08\0\0\0\0\0\0\0", "one name is written once");
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let bytes = to_bytes(&record(&[0.1, -0.25, 0.7], Codec::Int8, "asked"), 3);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..3 => Damaged::NoRecord,
                // This bit turns one known version into the other.
                3 if bit % 8 == 0 => Damaged::Checksum,
                3 => Damaged::UnknownVersion(VERSION ^ 1 << (bit % 8)),
                _ => Damaged::Checksum,
            };
            assert_eq!(from_bytes(&flipped).expect_err("it is damaged"), expected, "bit {bit}");
        }
    }

    #[test]
    fn truncated_or_extended_records_are_damaged() {
        let bytes = to_bytes(&record(&[0.1, 0.2], Codec::Lossless, "asked"), 3);
        for length in 0..bytes.len() {
            let error = from_bytes(&bytes[..length]).expect_err("it is damaged");
            assert!(!matches!(error, Damaged::UnknownVersion(_)), "{length}");
        }
        assert_eq!(from_bytes(&[&bytes[..], &[0]].concat()).expect_err("it is damaged"), Damaged::Checksum);
    }

    #[test]
    fn records_with_invalid_fields_are_refused_with_a_named_cause() {
        let bytes = to_bytes(&record(&[1.0, 2.0], Codec::F32, ""), 3);
        let refused = |change: fn(&mut Vec<u8>)| from_bytes(&forged(&bytes, change)).expect_err("it is refused");
        assert_eq!(refused(|body| body[4] = 9), Damaged::Contradiction, "no such form");
        assert_eq!(refused(|body| body[7] = 1), Damaged::Contradiction, "nothing is meant by this");
        assert_eq!(refused(|body| body[8] = 3), Damaged::Vector(NotPacked::Length), "more components than there are");
        assert_eq!(refused(|body| body[51] = 0xff), Damaged::Length, "a name that is longer than the record");
        assert_eq!(refused(|body| body[56] = 0xff), Damaged::Contradiction, "a name that is no text");
        assert_eq!(refused(|body| body.truncate(30)), Damaged::Length);
        assert!(matches!(refused(|body| body[64..].fill(0)), Damaged::Vector(NotPacked::Vector(_))), "all zero");
        assert!(matches!(refused(|body| body[64..].fill(0xff)), Damaged::Vector(NotPacked::Vector(_))), "not finite");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_bytes(&bytes);
            let begun = [&MAGIC[..], &[VERSION], &bytes].concat();
            prop_assert!(from_bytes(&begun).is_err(), "a checksum by chance");
            let sum = checksum(&begun);
            if let Ok((record, purge_count)) = from_bytes(&[&begun[..], &sum].concat()) {
                prop_assert_eq!(shown(&from_bytes(&to_bytes(&record, purge_count)).expect("it is whole").0), shown(&record));
            }
        }

        #[test]
        fn a_plausible_header_never_panics_the_reader(
            form in 0_u8..5, numbers in proptest::collection::vec(0_u32..6, 2), lengths in (0_u32..9, 0_u32..9),
            rest in proptest::collection::vec(any::<u8>(), 0..60)
        ) {
            let mut body = [&MAGIC[..], &[VERSION, form, 0, 0, 0]].concat();
            body.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            body.extend_from_slice(&[1; 32]);
            body.extend_from_slice(&lengths.0.to_le_bytes());
            body.extend_from_slice(&lengths.1.to_le_bytes());
            body.extend_from_slice(&rest);
            let sum = checksum(&body);
            body.extend_from_slice(&sum);
            if let Ok((record, purge_count)) = from_bytes(&body) {
                prop_assert_eq!(shown(&from_bytes(&to_bytes(&record, purge_count)).expect("it is whole").0), shown(&record));
            }
        }
    }
}
