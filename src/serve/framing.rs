//! Detects request heads with both `Content-Length` and `Transfer-Encoding` (RFC 9112, section 6.1). hyper removes the
//! length of such a request before the handler sees it, so the bytes of the head are scanned as they arrive.

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// Scan of one request head that may arrive in any number of parts.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// First bytes of the current line.
    // `CODING` is the longer of the two names, so both fit.
    start: [u8; CODING.len()],
    /// Bytes of the current line so far.
    line_bytes: usize,
    state: ScanState,
    has_length: bool,
    has_coding: bool,
}

/// Place in a request head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ScanState {
    /// Before the request line. Empty lines are allowed there (RFC 9112, section 2.2).
    #[default]
    Before,
    Within,
    After,
}

impl HeadScan {
    /// Scans the next bytes. Bytes after the head are ignored.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while self.state != ScanState::After && !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.extend_line(line);
            if end.is_some() {
                self.end_line();
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    /// Returns true if the head has both headers.
    pub(super) const fn has_length_and_coding(&self) -> bool {
        self.has_length && self.has_coding
    }

    fn extend_line(&mut self, part: &[u8]) {
        // Only the start of a line is kept, so a long header costs no memory.
        if let Some(free) = self.start.get_mut(self.line_bytes..) {
            let copied = free.len().min(part.len());
            free[..copied].copy_from_slice(&part[..copied]);
        }
        self.line_bytes += part.len();
    }

    fn end_line(&mut self) {
        let line = &self.start[..self.line_bytes.min(CODING.len())];
        // hyper accepts a bare line feed as a line end, too.
        if matches!(line, [] | [b'\r']) {
            // An empty line before the request line ends no head.
            if self.state == ScanState::Within {
                self.state = ScanState::After;
            }
        } else {
            self.state = ScanState::Within;
            // RFC 9112, section 5.1 forbids white space between name and colon, and hyper rejects it.
            self.has_length |= starts_with(line, LENGTH);
            self.has_coding |= starts_with(line, CODING);
        }
        self.line_bytes = 0;
    }
}

fn starts_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans a head in parts of every size.
    fn has_both(head: &str) -> bool {
        let scanned = |part_bytes| {
            let mut scan = HeadScan::default();
            head.as_bytes().chunks(part_bytes).for_each(|part| scan.read(part));
            scan.has_length_and_coding()
        };
        let whole = scanned(head.len());
        for part_bytes in 1..head.len() {
            assert_eq!(scanned(part_bytes), whole, "in parts of {part_bytes} bytes: {head}");
        }
        whole
    }

    #[test]
    fn both_length_headers_are_detected_in_any_order_and_case() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nhost: x\r\ncontent-length: 3\r\n\r\n",
            "\r\n\r\nPOST / HTTP/1.1\nCONTENT-LENGTH:3\nx: y\nTRANSFER-ENCODING:chunked\n\n",
        ] {
            assert!(has_both(head), "{head}");
        }
    }

    #[test]
    fn only_the_two_header_names_themselves_are_detected() {
        for head in [
            "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nx-content-length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-lengths: 3\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: content-length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\ncontent-length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 22\r\n\r\ntransfer-encoding: x\r\n",
        ] {
            assert!(!has_both(head), "{head}");
        }
    }
}
