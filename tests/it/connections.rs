//! Connections to the upstream and to callers: their age, their end, and what happens to requests on them.

mod dead;
mod interim;
mod lifetime;
mod odd_heads;
mod redirects;
mod refused;
