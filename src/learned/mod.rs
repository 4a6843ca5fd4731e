//! What the answers of the upstream taught, in memory only: the state of each space, and the credentials that the
//! upstream has accepted.

mod credentials;
mod identity;
mod spaces;

pub use credentials::{Acceptance, AcceptedCredential, AcceptedCredentials, TokenOwner};
pub use identity::{ModelChange, ModelIdentity, TokenCounting};
pub use spaces::{SpaceState, Spaces};
