//! Name resolution of the connector.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
#[cfg(test)]
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

/// Resolver of host names.
#[derive(Clone)]
pub enum Resolver {
    /// The operating system's resolver.
    System(GaiResolver),
    /// A resolver for tests: every name resolves to one address, which the test can change.
    #[cfg(test)]
    Switched(Arc<Mutex<SocketAddr>>),
}

impl Default for Resolver {
    fn default() -> Self {
        Self::System(GaiResolver::new())
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        match self {
            Self::System(system) => {
                let found = system.call(name);
                // Both variants need one type of result, so the addresses are collected.
                Box::pin(async move { Ok(found.await?.collect::<Vec<_>>().into_iter()) })
            }
            #[cfg(test)]
            Self::Switched(address) => {
                let address = *address.lock().expect("no test must panic while it holds the lock");
                Box::pin(async move { Ok(vec![address].into_iter()) })
            }
        }
    }
}
