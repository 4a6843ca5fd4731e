//! Reads a file line by line, with numbers and offsets, and with a limit on the length of a line. The files hold JSON
//! lines or plain text.

use std::io::{self, BufRead};

/// Bytes with which some programs begin a file in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reader of numbered lines.
#[derive(Debug)]
pub struct NumberedLines<R> {
    from: R,
    max_bytes: usize,
    number: u64,
    offset: u64,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Number of the line, from 1.
    pub number: u64,
    /// Offset of its first byte in the file, after a byte order mark.
    pub offset: u64,
    /// Size in bytes, including the line end.
    pub size: u64,
    /// Contents without the line end and without a byte order mark; `None` if they exceed the limit.
    pub bytes: Option<Vec<u8>>,
}

impl<R: BufRead> NumberedLines<R> {
    /// Creates a reader with a limit of `max_bytes` a line, without line ends.
    pub const fn new(from: R, max_bytes: usize) -> Self {
        Self { from, max_bytes, number: 0, offset: 0 }
    }

    /// Returns the next line that is not blank.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        while let Some(line) = self.any_line()? {
            if line.bytes.as_ref().is_none_or(|bytes| !bytes.trim_ascii().is_empty()) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn any_line(&mut self) -> io::Result<Option<Line>> {
        let (mut bytes, mut size, mut fits) = (Vec::new(), 0, true);
        loop {
            let piece = match self.from.fill_buf() {
                // A signal interrupted the read, and nothing is lost.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                piece => piece?,
            };
            let end = piece.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(piece.len(), |end| end + 1);
            fits &= bytes.len() + end.unwrap_or(used) <= self.max_bytes;
            // A line over the limit is read to its end without being stored, so the next line can be read.
            if fits {
                bytes.extend_from_slice(&piece[..end.unwrap_or(used)]);
            }
            self.from.consume(used);
            size += used as u64;
            // An empty buffer is the end of the file. The last line may have no line end.
            if end.is_some() || used == 0 {
                break;
            }
        }
        if size == 0 {
            return Ok(None);
        }
        self.number += 1;
        let mut offset = self.offset;
        self.offset += size;
        // A byte order mark is no part of the text.
        if offset == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
            offset = BYTE_ORDER_MARK.len() as u64;
        }
        Ok(Some(Line { number: self.number, offset, size, bytes: fits.then_some(bytes) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(u64, u64, Option<String>)> {
        // The small buffer splits lines into several reads.
        let mut lines = NumberedLines::new(io::BufReader::with_capacity(2, text.as_bytes()), 5);
        let mut read = Vec::new();
        while let Some(line) = lines.next_line().expect("memory can be read") {
            let text = line.bytes.map(|bytes| String::from_utf8(bytes).expect("it is text"));
            read.push((line.number, line.offset, text));
        }
        read
    }

    #[test]
    fn blank_lines_are_skipped_but_numbered() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(lines("one\n\n  \ntwo"), [(1, 0, text("one")), (4, 8, text("two"))]);
        assert_eq!(lines(""), []);
        assert_eq!(lines("\n"), []);
    }

    #[test]
    fn a_byte_order_mark_before_the_first_line_is_skipped() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(lines("\u{feff}1\n2\n"), [(1, 3, text("1")), (2, 5, text("2"))]);
        assert_eq!(lines("1\n\u{feff}\n"), [(1, 0, text("1")), (2, 2, text("\u{feff}"))]);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_but_numbered() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(lines("12345\n123456\n1\n"), [(1, 0, text("12345")), (2, 6, None), (3, 13, text("1"))]);
        assert_eq!(lines("1234567"), [(1, 0, None)]);
    }
}
