//! Connections to the upstream and to callers: lifetime, closing, and the effect on requests in flight.

mod dead;
mod interim;
mod lifetime;
mod odd_heads;
mod redirects;
mod refused;
