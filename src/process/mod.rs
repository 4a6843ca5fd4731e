//! The process and its machine: clock, tasks, expiring maps, memory limit, allocator, facts about the machine,
//! outbound connections, and errors.

pub mod clock;
pub mod connector;
pub mod errors;
pub mod expiring;
pub mod governor;
pub mod heap;
pub mod lines;
pub mod system;
pub mod tasks;
