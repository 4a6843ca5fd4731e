//! vecho: a caching reverse proxy in front of an OpenAI-compatible embeddings endpoint.
//!
//! The crate is layered into floors. A module uses only modules of lower floors. Modules of one floor use one another
//! only where the heading says so, and dependency cycles are not allowed. `tests/it/layout.rs` reads these headings
//! and enforces the rules.

// Floor 6: the process.
pub mod cli;

// Floor 5: wiring, and the order of starting and stopping.
pub mod app;

// Floor 4: the two ports, which do not know each other.
pub mod admin;
pub mod proxy;

// Floor 3: the life of one embeddings request.
pub mod flow;

// Floor 2: the parts, of which none knows another.
pub mod answers;
pub mod governor;
pub mod inflight;
pub mod mock;
pub mod plan;
pub mod serve;
pub mod tiers;
pub mod upstream;

// Floor 1: the OpenAI format, the file in which a cache travels, and what is learned from answers: words that several
// parts share, and that may use one another.
pub mod portable;
pub mod spaces;
pub mod vouch;
pub mod wire;

// Floor 0: the ground, whose modules may use one another.
pub mod bounded;
pub mod clock;
pub mod config;
pub mod connector;
pub mod epochs;
pub mod generation;
pub mod heap;
pub mod key;
pub mod lines;
pub mod logs;
pub mod metrics;
pub mod packed;
pub mod system;
pub mod tasks;
pub mod tokens;
pub mod traces;
pub mod vector;
