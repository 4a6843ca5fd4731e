//! `vecho doctor`: checks the set-up and its surroundings, one line for each check.

mod call;
mod check;
mod clock;
mod configuration;
mod disk;
mod environment;
mod examine;
mod limits;
mod options;
mod places;
mod ports;
mod redis_tier;
mod tokens;
mod upstream;

pub(super) use examine::doctor;
pub use options::DoctorOptions;
