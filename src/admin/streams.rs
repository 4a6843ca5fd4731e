//! Bounds on open event streams, by peer.
//!
//! Other hosts cannot take all streams, so an operator on this machine always gets one.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::guard::is_loopback;

/// Maximum number of open streams.
const MAX_STREAMS: usize = 16;
/// Maximum number of streams of all other hosts together.
const MAX_STREAMS_OF_OTHER_HOSTS: usize = 12;
/// Maximum number of streams of one other host.
const MAX_STREAMS_OF_ONE_HOST: usize = 8;

/// Peers of the open streams, one entry for each stream.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamLimit(Arc<Mutex<Vec<IpAddr>>>);

/// Permit for one stream, returned on drop.
pub(super) struct StreamPermit {
    limit: StreamLimit,
    host: IpAddr,
}

impl StreamLimit {
    /// Takes a permit for a stream of `peer`. Returns `None` if a bound is reached.
    pub(super) fn take(&self, peer: IpAddr) -> Option<StreamPermit> {
        // An IPv4-mapped address counts as its IPv4 address.
        let host = host(peer);
        // The lock is held until the push, so two requests cannot take the last permit.
        let mut open = self.open();
        let of = |is_counted: &dyn Fn(IpAddr) -> bool| open.iter().filter(|peer| is_counted(**peer)).count();
        let is_full = of(&|_| true) >= MAX_STREAMS;
        let is_bounded = of(&|peer| peer == host) >= MAX_STREAMS_OF_ONE_HOST
            || of(&|peer| !is_loopback(peer)) >= MAX_STREAMS_OF_OTHER_HOSTS;
        if is_full || (is_bounded && !is_loopback(host)) {
            return None;
        }
        open.push(host);
        Some(StreamPermit { limit: self.clone(), host })
    }

    fn open(&self) -> MutexGuard<'_, Vec<IpAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.limit.open();
        if let Some(at) = open.iter().position(|host| *host == self.host) {
            open.swap_remove(at);
        }
    }
}

/// Returns the address that represents the host of a peer. For IPv6 it is the /64 network, in which one host may choose
/// any number of addresses.
fn host(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(limit: &StreamLimit, peer: &str, times: usize) -> Vec<StreamPermit> {
        let peer = peer.parse().expect("a test's peer must be an address");
        (0..times).map_while(|_| limit.take(peer)).collect()
    }

    #[test]
    fn one_other_host_gets_eight_permits_and_all_other_hosts_twelve() {
        let limit = StreamLimit::default();
        let first = take(&limit, "10.0.0.1", 20);
        assert_eq!(first.len(), 8);
        assert_eq!(take(&limit, "::ffff:10.0.0.1", 1).len(), 0, "the same host");
        let second = take(&limit, "10.0.0.2", 20);
        assert_eq!(second.len(), 4);
        assert_eq!(take(&limit, "10.0.0.3", 1).len(), 0);
        let own = take(&limit, "127.0.0.1", 20);
        assert_eq!(own.len(), 4, "the rest is left to this machine");
        drop(first);
        assert_eq!(take(&limit, "10.0.0.3", 20).len(), 8, "permits are returned");
    }

    #[test]
    fn this_machine_gets_all_permits() {
        let limit = StreamLimit::default();
        let (four, six) = (take(&limit, "127.0.0.1", 9), take(&limit, "::1", 20));
        assert_eq!((four.len(), six.len()), (9, 7));
        assert_eq!(take(&limit, "10.0.0.1", 1).len(), 0);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_host() {
        let limit = StreamLimit::default();
        let open: Vec<StreamPermit> =
            (0..20).map_while(|n: u16| limit.take(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, n, 0, 0, n).into())).collect();
        assert_eq!(open.len(), 8);
        assert_eq!(take(&limit, "2001:db8:0:1::1", 1).len(), 1);
    }
}
