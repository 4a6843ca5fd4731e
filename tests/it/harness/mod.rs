//! What every stage's tests stand on: an upstream that can misbehave, and the real binary in front of it.

pub(crate) mod stub;
pub(crate) mod vecho;

pub(crate) use stub::{Behaviour, Stub};
pub(crate) use vecho::Vecho;
