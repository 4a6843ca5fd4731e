//! Connections to one Redis server or to a cluster, with or without TLS.

use std::path::Path;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisResult, TlsCertificates,
};

use super::error::LinkError;
use crate::config::{RedisConfig, RedisNode, Secret};

/// Multiplexed connection for concurrent commands. Cheap to clone.
#[derive(Clone)]
pub(super) enum Connection {
    /// To a single server.
    Single(MultiplexedConnection),
    /// To all nodes of a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects and authenticates within `redis.connect_timeout`.
    pub(super) async fn open(config: &RedisConfig) -> Result<Self, LinkError> {
        let certificates = certificates(config).await?;
        let connecting = async {
            if config.cluster { cluster(config, certificates).await } else { single(config, certificates).await }
        };
        match tokio::time::timeout(config.connect_timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            // No error while connecting concerns a single key, so each means that there is no connection.
            Ok(Err(error)) => Err(LinkError::of(&error).unwrap_or_else(|| LinkError::Lost(error.to_string()))),
            Err(_) => Err(LinkError::slow(config.connect_timeout)),
        }
    }
}

async fn single(config: &RedisConfig, certificates: Option<TlsCertificates>) -> RedisResult<Connection> {
    let address = address(&config.nodes[0], config)?;
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(address, certificates)?,
        None => Client::open(address)?,
    };
    // No response timeout here, because the link sets a timeout for each command.
    let settings =
        AsyncConnectionConfig::new().set_connection_timeout(Some(config.connect_timeout)).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&settings).await.map(Connection::Single)
}

async fn cluster(config: &RedisConfig, certificates: Option<TlsCertificates>) -> RedisResult<Connection> {
    let nodes = config.nodes.iter().map(|node| address(node, config)).collect::<RedisResult<Vec<_>>>()?;
    let mut builder = ClusterClient::builder(nodes)
        .connection_timeout(config.connect_timeout)
        .response_timeout(config.connect_timeout)
        // Enough retries while a slot moves to another node. Anything slower is a miss.
        .retries(2)
        .min_retry_wait(1)
        .max_retry_wait(10);
    if let Some(certificates) = certificates {
        builder = builder.certs(certificates);
    }
    builder.build()?.get_async_connection().await.map(Connection::Cluster)
}

fn address(node: &RedisNode, config: &RedisConfig) -> RedisResult<ConnectionInfo> {
    let host = node.host.clone();
    let address = if node.tls {
        ConnectionAddr::TcpTls { host, port: node.port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, node.port)
    };
    // Operators find these connections by the library name in CLIENT LIST.
    let mut login =
        RedisConnectionInfo::default().set_db(node.database).set_lib_name("vecho", env!("CARGO_PKG_VERSION"));
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = config.password.as_ref().map(Secret::reveal) {
        login = login.set_password(password);
    }
    Ok(address.into_connection_info()?.set_redis_settings(login))
}

/// Reads the certificate files for each new connection, so renewed certificates are used.
async fn certificates(config: &RedisConfig) -> Result<Option<TlsCertificates>, LinkError> {
    if config.nodes.iter().all(|node| !node.tls) {
        return Ok(None);
    }
    let client_tls = match &config.identity {
        Some(tls) => {
            Some(ClientTlsConfig { client_cert: read(&tls.cert_file).await?, client_key: read(&tls.key_file).await? })
        }
        None => None,
    };
    let root_cert = match &config.ca_file {
        Some(file) => Some(read(file).await?),
        None => None,
    };
    Ok(Some(TlsCertificates { client_tls, root_cert }))
}

async fn read(file: &Path) -> Result<Vec<u8>, LinkError> {
    let read = tokio::fs::read(file).await;
    read.map_err(|error| LinkError::Lost(format!("{} cannot be read: {error}", file.display())))
}
