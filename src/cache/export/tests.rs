//! A file is read as it was written, or its damage is reported.

use proptest::prelude::*;

use super::format::{CHECKSUM_BYTES, END_MARK, FRAME_HEAD_BYTES, HEAD, MARK_BYTES, RECORD_MARK, empty_sum};
use super::*;
use crate::key::{Key, Tag};

fn key(n: u64) -> Key {
    empty_sum().extend(Tag::Text, &n.to_le_bytes())
}

fn record(n: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    key(n).stream().fill(&mut bytes);
    bytes
}

fn file(lengths: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ExportWriter::begin(&mut out);
    for (n, length) in lengths.iter().enumerate() {
        writer.record(&key(n as u64), &record(n as u64, *length), &mut out).expect("it fits");
    }
    assert_eq!(writer.end(&mut out), lengths.len() as u64);
    out
}

/// The records that were read, the number of damaged places, and the ending.
type Read = (Vec<(Key, Vec<u8>)>, u64, Ending);

fn read(bytes: &[u8], chunk_bytes: usize) -> Result<Read, NotPortable> {
    let (mut reader, mut records) = (ExportReader::default(), Vec::new());
    let mut drain = |reader: &mut ExportReader| {
        while let Some(piece) = reader.next_item()? {
            if let ExportItem::Record(key, record) = piece {
                records.push((key, record.to_vec()));
            }
        }
        Ok(())
    };
    for chunk in bytes.chunks(chunk_bytes) {
        reader.feed(chunk);
        drain(&mut reader)?;
        assert!(reader.pending.len() <= MAX_RECORD_BYTES + FRAME_HEAD_BYTES + CHECKSUM_BYTES + chunk_bytes);
    }
    reader.fed();
    drain(&mut reader)?;
    assert_eq!(reader.records(), records.len() as u64);
    Ok((records, reader.damaged(), reader.ending()))
}

fn written(lengths: &[usize]) -> Vec<(Key, Vec<u8>)> {
    lengths.iter().enumerate().map(|(n, length)| (key(n as u64), record(n as u64, *length))).collect()
}

#[test]
fn a_file_without_records_is_complete() {
    assert_eq!(read(&file(&[]), 7), Ok((Vec::new(), 0, Ending::Whole)));
}

#[test]
fn files_of_another_format_are_refused_by_their_first_line() {
    for other in [&b""[..], b"v", b"vecho", b"vecho cache", b"{\"custom_id\":1}", b"vecho cash 1\n"] {
        assert_eq!(read(other, 5), Err(NotPortable::Other), "{other:?}");
    }
    assert_eq!(read(b"vecho cache 1\n", 5), Err(NotPortable::Version));
    assert_eq!(read(b"vecho cache 10\n", 5), Err(NotPortable::Version));
}

#[test]
fn a_record_that_is_too_long_is_not_written() {
    let mut out = Vec::new();
    let mut writer = ExportWriter::begin(&mut out);
    let before = out.len();
    assert_eq!(writer.record(&key(0), &vec![1; MAX_RECORD_BYTES + 1], &mut out), Err(RecordTooLong));
    assert_eq!(writer.record(&key(0), &[], &mut out), Err(RecordTooLong));
    assert_eq!(out.len(), before);
    assert_eq!(writer.record(&key(0), &vec![1; MAX_RECORD_BYTES], &mut out), Ok(()));
    writer.end(&mut out);
    assert!(matches!(read(&out, 10_000), Ok((records, 0, Ending::Whole)) if records.len() == 1));
}

#[test]
fn missing_duplicate_or_moved_records_are_detected_at_the_end() {
    let frame = FRAME_HEAD_BYTES + 50 + CHECKSUM_BYTES;
    let whole = file(&[50; 3]);
    let (head, rest) = whole.split_at(HEAD.len());
    let frames: Vec<&[u8]> = (0..3).map(|n| &rest[n * frame..(n + 1) * frame]).collect();
    let end = &rest[3 * frame..];
    for changed in [&[0, 2][..], &[0, 1, 1, 2], &[1, 0, 2], &[]] {
        let bytes = [head, &changed.iter().flat_map(|n| frames[*n]).copied().collect::<Vec<u8>>(), end].concat();
        let (records, damaged, ending) = read(&bytes, 64).expect("it begins well");
        assert_eq!((records.len(), damaged, ending), (changed.len(), 0, Ending::Damaged));
    }
    assert_eq!(read(&[&whole[..], b"x"].concat(), 64).expect("it begins well").2, Ending::Damaged);
    assert_eq!(read(&[&whole[..], b"x"].concat(), 9_999).expect("it begins well").2, Ending::Damaged);
}

#[test]
fn foreign_bytes_between_records_lose_none_and_are_detected() {
    let whole = file(&[50; 3]);
    let at = HEAD.len() + FRAME_HEAD_BYTES + 50 + CHECKSUM_BYTES;
    let bytes = [&whole[..at], b"something else", &whole[at..]].concat();
    let (records, damaged, ending) = read(&bytes, 64).expect("it begins well");
    assert_eq!((records, damaged, ending), (written(&[50; 3]), 1, Ending::Damaged));
}

#[test]
fn a_length_above_the_maximum_is_not_buffered() {
    let whole = file(&[50; 3]);
    let too_long = u32::try_from(2 * MAX_RECORD_BYTES).expect("it is small").to_le_bytes();
    let filler = vec![0; MAX_RECORD_BYTES + MAX_RECORD_BYTES / 2];
    let bytes = [HEAD, &RECORD_MARK, &too_long, &filler, &whole[HEAD.len()..]].concat();
    // `read` also checks the reader's memory.
    let (records, damaged, ending) = read(&bytes, 4_096).expect("it begins well");
    assert_eq!((records, damaged, ending), (written(&[50; 3]), 1, Ending::Damaged));
}

#[test]
fn a_corrupted_length_loses_one_record() {
    let mut bytes = file(&[50; 5]);
    let at = HEAD.len() + (FRAME_HEAD_BYTES + 50 + CHECKSUM_BYTES) * 2 + MARK_BYTES;
    bytes[at + 2] = 1;
    let (records, damaged, ending) = read(&bytes, 64).expect("it begins well");
    assert_eq!((records.len(), damaged, ending), (4, 1, Ending::Damaged));
}

#[test]
fn reading_stops_after_too_many_false_record_marks() {
    let mut bytes = HEAD.to_vec();
    for _ in 0..200_000 {
        bytes.extend_from_slice(&RECORD_MARK);
        bytes.extend_from_slice(&100_000_u32.to_le_bytes());
    }
    let (records, damaged, ending) = read(&bytes, 65_536).expect("it begins well");
    assert_eq!((records.len(), damaged, ending), (0, 1_000, Ending::GivenUp));
}

proptest! {
    #[test]
    fn a_file_reads_back_in_chunks_of_any_size(
        lengths in prop::collection::vec(1_usize..300, 0..12),
        chunk_bytes in 1_usize..400,
    ) {
        prop_assert_eq!(read(&file(&lengths), chunk_bytes), Ok((written(&lengths), 0, Ending::Whole)));
    }

    #[test]
    fn a_truncated_file_yields_the_records_before_the_cut(
        lengths in prop::collection::vec(1_usize..300, 1..8),
        cut in 0.0..1.0_f64,
        chunk_bytes in 1_usize..400,
    ) {
        let bytes = file(&lengths);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small")]
        let kept = (bytes.len() as f64 * cut) as usize;
        match read(&bytes[..kept], chunk_bytes) {
            Err(NotPortable::Other) => prop_assert!(kept < HEAD.len()),
            Err(NotPortable::Version) => prop_assert!(false, "the version is known"),
            Ok((records, damaged, ending)) => {
                prop_assert_eq!((damaged, ending), (0, Ending::Cut));
                let ends = lengths.iter().scan(HEAD.len(), |at, length| {
                    *at += FRAME_HEAD_BYTES + length + CHECKSUM_BYTES;
                    Some(*at)
                });
                prop_assert_eq!(records.len(), ends.filter(|end| *end <= kept).count());
                prop_assert_eq!(&records[..], &written(&lengths)[..records.len()]);
            }
        }
    }

    #[test]
    fn a_flipped_bit_loses_at_most_one_record_and_alters_none(
        lengths in prop::collection::vec(1_usize..300, 1..8),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u32,
        chunk_bytes in 1_usize..400,
    ) {
        let mut bytes = file(&lengths);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        match read(&bytes, chunk_bytes) {
            Err(_) => prop_assert!(place < HEAD.len()),
            Ok((records, _, ending)) => {
                prop_assert!(ending != Ending::Whole);
                let written = written(&lengths);
                prop_assert!(records.len() + 1 >= written.len());
                prop_assert!(records.iter().all(|record| written.contains(record)));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_reader(
        bytes in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            Just(RECORD_MARK.to_vec()), Just(END_MARK.to_vec()), Just(vec![9, 0, 0, 0]),
        ], 0..40),
        chunk_bytes in 1_usize..100,
    ) {
        let bytes = [HEAD, &bytes.concat()].concat();
        let (records, _, ending) = read(&bytes, chunk_bytes).expect("it begins well");
        prop_assert!(records.is_empty() && ending != Ending::Whole);
    }
}
