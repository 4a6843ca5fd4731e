//! vecho: a caching reverse proxy in front of an OpenAI-compatible embeddings endpoint.
//!
//! Read the crate by floor, from the bottom up or from the top down. A module uses only modules of floors below its
//! own; the parts of floor 2 do not know one another, and neither do the two ports. A test keeps it so.

// Floor 5: the process.
pub mod cli;

// Floor 4: wiring, and the order of starting and stopping.

// Floor 3: the two ports.
pub mod admin;

// Floor 2: the life of one embeddings request.
pub mod flow;

// Floor 1: the parts. None of them knows another.
pub mod answers;
pub mod inflight;
pub mod mock;
pub mod plan;
pub mod tiers;
pub mod upstream;
pub mod vouch;

// Floor 0: the vocabulary, in two steps: the second is made of words of the first.
pub mod spaces;
pub mod wire;

pub mod bounded;
pub mod clock;
pub mod config;
pub mod generation;
pub mod key;
pub mod logs;
pub mod metrics;
pub mod tasks;
pub mod tokens;
pub mod vector;
