//! `vecho healthcheck`: one request to the ops port over a plain socket, for containers without curl.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use http::Uri;

use super::{FAILED, FAULTY, Output, print};

const DEADLINE: Duration = Duration::from_secs(2);
const MAX_LINE_BYTES: u64 = 1024;

/// Requests `/readyz` from the ops port of this configuration.
pub(super) fn ask_readyz(admin_listen: SocketAddr, output: &mut Output<'_>) -> u8 {
    let address = reachable(admin_listen);
    let authority = address.to_string();
    report(&format!("http://{authority}/readyz"), ask(address, &authority, "/readyz"), output)
}

/// Requests the given URL instead.
pub(super) fn ask_url(url: &str, output: &mut Output<'_>) -> u8 {
    let Some((authority, address, path)) = parts(url) else {
        print(output.err, "--url must be http://HOST:PORT/PATH with a host that is known");
        return FAULTY;
    };
    report(url, ask(address, &authority, &path), output)
}

fn parts(url: &str) -> Option<(String, SocketAddr, String)> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = (host, authority.port_u16().unwrap_or(80)).to_socket_addrs().ok()?.next()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some((authority.to_string(), reachable(address), path.to_owned()))
}

/// Replaces an unspecified address ("every interface") with loopback.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Prints the result with the URL.
fn report(url: &str, answer: io::Result<u16>, output: &mut Output<'_>) -> u8 {
    match answer {
        Ok(status @ 200..300) => print(output.out, &format!("ready ({status}): {url}")),
        Ok(status) => {
            print(output.err, &format!("not ready ({status}): {url}"));
            FAILED
        }
        Err(error) => {
            print(output.err, &format!("no answer: {url}: {error}"));
            FAILED
        }
    }
}

/// Returns the status of the response.
fn ask(address: SocketAddr, authority: &str, path: &str) -> io::Result<u16> {
    let until = Instant::now() + DEADLINE;
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_write_timeout(Some(left(until)?))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")?;
    let line = BufReader::new(Timed { stream, until }.take(MAX_LINE_BYTES)).lines().next();
    let line = line.ok_or(io::ErrorKind::UnexpectedEof)??;
    status(&line).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not HTTP"))
}

fn status(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A socket with one deadline for all reads, so a slow stream of bytes cannot extend it.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_every_interface_is_asked_on_loopback() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:7862"), "127.0.0.1:7862");
        assert_eq!(reached("[::]:7862"), "[::1]:7862");
        assert_eq!(reached("192.0.2.1:7862"), "192.0.2.1:7862");
    }

    #[test]
    fn only_a_status_line_of_http_has_a_status() {
        assert_eq!(status("HTTP/1.1 503 Service Unavailable"), Some(503));
        assert_eq!(status("SSH-2.0-OpenSSH 200"), None);
        assert_eq!(status("HTTP/1.1 fine"), None);
    }

    #[test]
    fn a_url_without_a_port_means_80_and_https_is_refused() {
        let (authority, address, path) = parts("http://127.0.0.1/x?y=1").unwrap();
        assert_eq!((authority.as_str(), address.port(), path.as_str()), ("127.0.0.1", 80, "/x?y=1"));
        assert!(parts("http://[::1]:7862/readyz").is_some());
        assert!(parts("https://127.0.0.1/").is_none());
    }
}
