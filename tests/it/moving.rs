//! Export and import of the cache between instances, and filling it from text files and batch results.

mod batch_api;
mod batches;
mod command;
mod files;
mod folder;
mod left_out;
mod route;
mod warm;
