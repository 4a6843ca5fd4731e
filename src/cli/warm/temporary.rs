//! The temporary vecho of `vecho warm`, which fills the tiers below memory if no other vecho is running.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::app::{App, Surroundings};
use crate::cli::client::Client;
use crate::cli::moving::CommandError;
use crate::cli::progress::counted;
use crate::config::Config;
use crate::process::clock::Clock;

/// Longest wait for a lower tier to become available, and the interval between two checks.
const TIER_TIMEOUT: Duration = Duration::from_secs(10);
const TIER_CHECK_EVERY: Duration = Duration::from_millis(50);

/// Starts a vecho with this configuration on random loopback ports.
pub(super) async fn start(config: Config) -> Result<(App, Config), CommandError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // TLS is off, because the client of this command speaks plain HTTP.
    let config = Config { listen: any, admin_listen: any, tls: None, ..config };
    let own = App::start(config.clone(), Surroundings::detached(Clock::System)).await;
    let own = own.map_err(|error| error.to_string())?;
    let config = Config { listen: own.public_addr(), admin_listen: own.admin_addr(), ..config };
    if has_lasting_tier(&config).await {
        return Ok((own, config));
    }
    // A temporary vecho without a lower tier would lose every vector at its end.
    own.stop().await;
    Err("no vecho runs at `listen`, and without one there is no tier below memory that would keep anything".to_owned())
}

/// Waits until a lower tier is available: a start does not wait for a large folder or for Redis. Returns false on
/// timeout.
async fn has_lasting_tier(config: &Config) -> bool {
    let client = Client::of_ops_port(config);
    let is_up = async {
        loop {
            let stats = client.stats().await;
            if ["disk", "redis"].iter().any(|tier| stats["tiers"][tier]["up"] == true) {
                break;
            }
            sleep(TIER_CHECK_EVERY).await;
        }
    };
    let is_wanted = config.disk.enabled || !config.redis.nodes.is_empty();
    is_wanted && timeout(TIER_TIMEOUT, is_up).await.is_ok()
}

/// Stops it. Fails if vectors could not be stored.
pub(super) async fn stop(own: App, config: &Config) -> Result<(), CommandError> {
    // The statistics are read before the stop, since the port closes with it.
    let stats = Client::of_ops_port(config).stats().await;
    let dropped: u64 = ["disk", "redis"].iter().filter_map(|tier| stats["tiers"][tier]["dropped"].as_u64()).sum();
    let lost = dropped + own.stop().await.unwritten as u64;
    if lost == 0 { Ok(()) } else { Err(format!("{} could not be kept after the fetch", counted(lost, "vector"))) }
}
