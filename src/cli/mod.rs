//! Command line: arguments and commands.

mod arguments;
mod batch;
mod client;
mod credential;
mod doctor;
mod find_mocks;
mod health;
mod moving;
mod output;
mod progress;
mod run;
mod serve;
mod signals;
mod surrounding;
mod warm;

pub use arguments::{Command, ConfigFormat, Invocation, definition, parse};
pub use batch::BatchOptions;
pub use credential::Credential;
pub use doctor::DoctorOptions;
pub use output::{FAILED, FAULTY, OK, Output};
pub use run::run;
pub use surrounding::Surrounding;
pub use warm::WarmOptions;
