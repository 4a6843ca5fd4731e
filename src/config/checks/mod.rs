//! Converts raw values to checked ones, section by section, then checks conditions across keys.

mod across;
mod address;
mod addresses;
mod budget;
mod cache;
mod compression;
mod drift;
mod egress;
mod headers;
mod limits;
mod pace;
mod ranges;
mod savings;
mod sections;
mod stores;
mod targets;
mod traces;
mod upstream;

pub(super) use sections::check;
pub(super) use targets::key_files;
