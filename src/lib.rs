//! vecho: a caching reverse proxy in front of an OpenAI-compatible embeddings endpoint.
//!
//! Read the crate by floor; a module uses only modules of floors below its own.

pub mod clock;
pub mod config;
pub mod governor;
pub mod key;
pub mod serve;
pub mod system;
pub mod tasks;
pub mod vector;
