//! HTTP/1.1 on blocking sockets, one request per connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct BatchRequest {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl BatchRequest {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Returns the value of a query parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        pairs.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns file name and content of an upload.
    pub(crate) fn form(&self) -> (String, Vec<u8>) {
        let kind = self.header("content-type").expect("an upload has a content type");
        let mark = format!("--{}", kind.split_once("boundary=").expect("a form has a boundary").1);
        let purpose = format!("{mark}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n{mark}\r\n");
        assert!(self.body.starts_with(purpose.as_bytes()), "the purpose comes first");
        let file = &self.body[purpose.len()..];
        let start = position(file, b"\r\n\r\n").expect("the file has headers") + 4;
        let head = String::from_utf8_lossy(&file[..start]);
        let name = head.split_once("filename=\"").and_then(|(_, rest)| rest.split('"').next());
        let end = file.len() - format!("\r\n{mark}--\r\n").len();
        assert_eq!(&file[end..], format!("\r\n{mark}--\r\n").as_bytes());
        (name.expect("the file has a name").to_owned(), file[start..end].to_vec())
    }
}

/// Reads a request, or returns `None` if the client closes the connection.
pub(crate) fn read(stream: &mut TcpStream) -> Option<BatchRequest> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let (mut head_end, mut length) = (None, 0);
    loop {
        if head_end.is_none()
            && let Some(end) = position(&bytes, b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            assert!(!head.contains("transfer-encoding"), "a request has a known length");
            head_end = Some(end);
        }
        if let Some(end) = head_end
            && bytes.len() >= end + 4 + length
        {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let mut words = head.split(' ').map(str::to_owned);
            let (method, target) = (words.next()?, words.next()?);
            return Some(BatchRequest { method, target, body: bytes[end + 4..].to_vec(), head });
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Writes an answer, which ends the connection.
pub(crate) fn write(stream: &mut TcpStream, status: u16, body: &[u8]) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    // A killed client cannot be answered.
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok();
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
