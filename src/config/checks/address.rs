//! Parser of listen addresses.

use std::net::{Ipv4Addr, SocketAddr};

use toml::Value;

use crate::config::values;

/// Parses an address with a port. The only known name is `localhost`: others may have several addresses, or none at
/// start.
pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    let text = values::text(value)?;
    // A dot at the end marks a complete name in DNS, so both spellings are `localhost`.
    let local = text.rsplit_once(':').filter(|(host, _)| host.trim_end_matches('.').eq_ignore_ascii_case("localhost"));
    let address = match local {
        Some((_, port)) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().ok(),
    };
    address.ok_or_else(|| {
        format!("{value} is not an address with a port, such as 127.0.0.1:7861, [::]:7861 or localhost:7861")
    })
}
