//! Inspection of the configured Redis: login, round trip, version and eviction. It changes nothing.

use std::time::Duration;

use redis::aio::ConnectionLike as _;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo};
use redis::{FromRedisValue as _, InfoDict, RedisResult, Value, cmd};
use tokio::time::{Instant, timeout};

use super::connect::Connection;
use super::error::LinkError;
use crate::config::RedisConfig;

/// Facts about a server, or about one node of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Time of one round trip; in a cluster, to all primary nodes.
    pub round_trip: Duration,
    /// Version of the server. This and the following facts are `None` if the server does not tell them.
    pub version: Option<String>,
    /// Memory limit of the server; 0 if it has none.
    pub max_bytes: Option<u64>,
    /// The setting `maxmemory-policy`.
    pub policy: Option<String>,
    /// True if the server is a copy, which refuses writes.
    pub is_replica: bool,
}

/// Connects, logs in, and reads the facts. Each step ends within `within`. The error omits the password.
pub async fn inspect(config: &RedisConfig, within: Duration) -> Result<ServerFacts, String> {
    let config = RedisConfig { connect_timeout: config.connect_timeout.min(within), ..config.clone() };
    let mut connection = Connection::open(&config).await.map_err(|error| error.cause().to_owned())?;
    let begun = Instant::now();
    let answered = timeout(within, ping(&mut connection)).await.map_err(|_| late(within))?;
    answered.map_err(|error| LinkError::of_write(&error).cause().to_owned())?;
    let round_trip = begun.elapsed();
    // A user without permission for INFO can still use the cache.
    let info = timeout(within, info(&mut connection)).await.ok().and_then(Result::ok);
    Ok(info.map_or_else(ServerFacts::default, |info| facts(&info)).with_round_trip(round_trip))
}

impl ServerFacts {
    fn with_round_trip(self, round_trip: Duration) -> Self {
        Self { round_trip, ..self }
    }
}

async fn ping(connection: &mut Connection) -> RedisResult<()> {
    let pong = match connection {
        Connection::Single(server) => server.req_packed_command(&cmd("PING")).await,
        Connection::Cluster(cluster) => {
            let all = (MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::AllSucceeded));
            cluster.route_command(cmd("PING"), RoutingInfo::MultiNode(all)).await
        }
    };
    pong.and_then(Value::extract_error).map(drop)
}

async fn info(connection: &mut Connection) -> RedisResult<InfoDict> {
    let said = match connection {
        Connection::Single(server) => server.req_packed_command(&cmd("INFO")).await,
        Connection::Cluster(cluster) => {
            let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
            cluster.route_command(cmd("INFO"), any).await
        }
    };
    Ok(InfoDict::from_redis_value(said.and_then(Value::extract_error)?)?)
}

fn facts(info: &InfoDict) -> ServerFacts {
    ServerFacts {
        version: info.get("redis_version"),
        max_bytes: info.get("maxmemory"),
        policy: info.get("maxmemory_policy"),
        is_replica: info.get::<String>("role").is_some_and(|role| role == "slave"),
        ..ServerFacts::default()
    }
}

fn late(within: Duration) -> String {
    LinkError::slow(within).cause().to_owned()
}
