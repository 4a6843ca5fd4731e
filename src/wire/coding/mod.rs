//! Content codings (RFC 9110, section 8.4.1), encoded and decoded in steps of bounded size.

mod accept;
mod decoding;
mod encoder;
mod gzip;
mod header;
mod inflate;
mod stage;
mod undecodable;

#[cfg(test)]
mod tests;

pub use accept::{AcceptedCodings, ChosenCoding};
pub use decoding::{Decoding, Step};
pub use encoder::{Encoder, PREFERRED_CODINGS};
pub use header::{Coding, content_codings};
pub use undecodable::Undecodable;
