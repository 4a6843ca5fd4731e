//! vecho: a caching reverse proxy in front of an OpenAI-compatible embeddings endpoint.
//!
//! The crate is layered. A module uses only modules of lower layers, and modules of one layer do not use one another.
//! `tests/it/layout.rs` reads the headings below and enforces both. A request passes `serve`, `proxy` and `flow`, which
//! uses `cache` and `upstream`.

// Layer 11: commands and flags.
pub mod cli;

// Layer 10: wiring, reload, and the order of starting and stopping.
pub mod app;

// Layer 9: the two ports.
pub mod admin;
pub mod proxy;

// Layer 8: the life of one embeddings request.
pub mod flow;

// Layer 7: every place where vectors are kept, and calls to the upstream.
pub mod cache;
pub mod upstream;

// Layer 6: what answers of the upstream taught, and what calls have cost.
pub mod learned;
pub mod spend;

// Layer 5: the OpenAI format and its dialects, without I/O.
pub mod wire;

// Layer 4: sockets, cache keys, and what operators see.
pub mod key;
pub mod observe;
pub mod serve;

// Layer 3: configuration.
pub mod config;

// Layer 2: vectors and their packed forms; the process and its machine.
pub mod process;
pub mod vector;
