//! Minimal HTTP/1.1 client: takes ready-made request bytes, returns status and body, and reuses its buffers.
//!
//! A full client would cost more than the measured servers and would share their bugs.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Outcome;

/// Buffer space reserved before each read; large enough that large responses take few reads.
const READ_BYTES: usize = 256 * 1024;

/// One keep-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    body: Vec<u8>,
}

/// Framing of a body, which determines its end.
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: Vec::new(), body: Vec::new() })
    }

    /// Opens `count` connections.
    pub(crate) async fn open_many(address: SocketAddr, count: usize) -> Outcome<Vec<Self>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Self::open(address).await?);
        }
        Ok(connections)
    }

    /// Sends a request and reads the whole response. Fails unless the status is 200.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Outcome<&[u8]> {
        self.send(request).await?;
        self.receive().await
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Outcome<()> {
        Ok(self.stream.write_all(request).await?)
    }

    /// Reads the response to the request that was sent. Fails unless the status is 200.
    pub(crate) async fn receive(&mut self) -> Outcome<&[u8]> {
        self.inbox.clear();
        let head_bytes = self.read_head().await?;
        let head = std::str::from_utf8(&self.inbox[..head_bytes])?;
        // The status follows `HTTP/1.1 `.
        let status = head.get(9..12).unwrap_or_default().to_owned();
        match framing(head)? {
            Framing::Length(length) => self.read_length(head_bytes, length).await?,
            Framing::Chunked => self.read_chunks(head_bytes).await?,
        }
        if status != "200" {
            let start = &self.body[..self.body.len().min(300)];
            return Err(format!("status {status}: {}", String::from_utf8_lossy(start)).into());
        }
        Ok(&self.body)
    }

    async fn read_head(&mut self) -> Outcome<usize> {
        loop {
            if let Some(end) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(end + 4);
            }
            self.read_some().await?;
        }
    }

    async fn read_length(&mut self, from: usize, length: usize) -> Outcome<()> {
        while self.inbox.len() < from + length {
            self.read_some().await?;
        }
        self.body.clear();
        self.body.extend_from_slice(&self.inbox[from..from + length]);
        Ok(())
    }

    async fn read_chunks(&mut self, from: usize) -> Outcome<()> {
        self.body.clear();
        let mut at = from;
        loop {
            let Some((line_end, size)) = chunk_head(&self.inbox[at..])? else {
                self.read_some().await?;
                continue;
            };
            let start = at + line_end;
            let end = start + size;
            while self.inbox.len() < end + 2 {
                self.read_some().await?;
            }
            self.body.extend_from_slice(&self.inbox[start..end]);
            at = end + 2;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn read_some(&mut self) -> Outcome<()> {
        self.inbox.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.inbox).await? {
            0 => Err("the server closed the connection in the middle of an answer".into()),
            _ => Ok(()),
        }
    }
}

/// Returns the length of the size line and of the chunk after it, or `None` if the line is incomplete.
fn chunk_head(bytes: &[u8]) -> Outcome<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let digits = std::str::from_utf8(&bytes[..end])?;
    Ok(Some((end + 2, usize::from_str_radix(digits, 16)?)))
}

fn framing(head: &str) -> Outcome<Framing> {
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(Framing::Length(value.trim().parse()?));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked") {
            return Ok(Framing::Chunked);
        }
    }
    Err("an answer without a length".into())
}
