//! Address to call for an address that a server listens on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Replaces an unspecified address ("every interface") with loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    // A wildcard address can be bound but not called on every system.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_replaced_with_loopback() {
        let reached = |address: &str| reachable(address.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:7862"), "127.0.0.1:7862");
        assert_eq!(reached("[::]:7862"), "[::1]:7862");
        assert_eq!(reached("192.0.2.1:7862"), "192.0.2.1:7862");
    }
}
