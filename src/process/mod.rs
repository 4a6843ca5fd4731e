//! The process and its machine: clock, small files, certificates, lifecycle, tasks, worker threads, slices of long work,
//! expiring maps, fields that replicas share, memory limit, allocator, random bytes, facts about the machine, and outbound connections.

pub mod atomic_file;
pub mod certificate;
pub mod clock;
pub mod connector;
pub mod errors;
pub mod expiring;
pub mod file_system;
pub mod governor;
pub mod heap;
pub mod lifecycle;
pub mod lines;
pub mod pace;
pub mod random;
pub mod shared_fields;
pub mod system;
pub mod tasks;
pub mod workers;
