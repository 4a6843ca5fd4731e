//! Export files: records are read as they were written, and every change of a file is detected.

use vecho::cache::export::{Ending, ExportItem, ExportReader, ExportWriter, MAX_RECORD_BYTES, NotPortable};
use vecho::key::Key;

type Records = Vec<(Key, Vec<u8>)>;

/// Records, number of damaged places, and ending.
type Outcome = Result<(Records, u64, Ending), NotPortable>;

/// Checks bytes as a file, and as instructions for writing a file and then changing it.
pub(crate) fn check(bytes: &[u8]) {
    let whole = read(bytes, bytes.len().max(1));
    for chunk in [1, 7, 61] {
        assert_eq!(read(bytes, chunk), whole, "the size of chunks changes nothing");
    }
    if let Ok((records, ..)) = &whole {
        assert!(records.iter().all(|(_, record)| (1..=MAX_RECORD_BYTES).contains(&record.len())));
        assert_eq!(read(&write(records), 4096), Ok((records.clone(), 0, Ending::Whole)));
    }
    changed(bytes);
}

/// Writes records made from the bytes, changes the file as the last bytes specify, and reads it.
fn changed(bytes: &[u8]) {
    let Some((rest, orders)) = bytes.split_last_chunk::<6>() else { return };
    let records: Records =
        rest.chunks(40).map(|part| (Key::from_bytes(*blake3::hash(part).as_bytes()), part.to_vec())).collect();
    let file = write(&records);
    let place = usize::from(u16::from_le_bytes([orders[0], orders[1]])) % file.len();
    let length = usize::from(orders[2]).min(file.len() - place);
    let mut damaged = file.clone();
    match orders[3] % 4 {
        0 => damaged[place] ^= orders[4],
        1 => drop(damaged.drain(place..place + length)),
        2 => drop(damaged.splice(place..place, file[place..place + length].iter().copied())),
        _ => damaged.truncate(place),
    }
    match read(&damaged, 1 + usize::from(orders[5])) {
        Ok((read, ..)) if damaged != file => {
            assert!(read.iter().all(|record| records.contains(record)), "a record that was never written");
        }
        outcome => assert!(damaged != file || outcome == Ok((records, 0, Ending::Whole))),
    }
    if damaged != file {
        let ending = read(&damaged, 64).map(|(.., ending)| ending);
        assert_ne!(ending, Ok(Ending::Whole), "a file that changed is not whole");
    }
}

fn write(records: &Records) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = ExportWriter::begin(&mut file);
    for (key, record) in records {
        writer.record(key, record, &mut file).expect("a record that was read must fit");
    }
    writer.end(&mut file);
    file
}

fn read(bytes: &[u8], chunk: usize) -> Outcome {
    let (mut reader, mut records) = (ExportReader::default(), Records::new());
    for part in bytes.chunks(chunk) {
        reader.feed(part);
        take(&mut reader, &mut records)?;
    }
    reader.fed();
    take(&mut reader, &mut records)?;
    assert_eq!(reader.records(), records.len() as u64);
    Ok((records, reader.damaged(), reader.ending()))
}

fn take(reader: &mut ExportReader, records: &mut Records) -> Result<(), NotPortable> {
    while let Some(piece) = reader.next_item()? {
        if let ExportItem::Record(key, record) = piece {
            records.push((key, record.to_vec()));
        }
    }
    Ok(())
}
