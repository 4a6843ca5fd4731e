//! Model watch: vecho asks for a few fixed texts of its own from time to time. If their vectors change, the model behind
//! the name has changed.

mod canary;
mod check;
mod note;
mod task;

pub use task::watch_models;
