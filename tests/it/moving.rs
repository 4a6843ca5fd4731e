//! The cache on its way from one instance to another, and into one from elsewhere.

mod batches;
mod command;
mod files;
mod folder;
mod left_out;
mod route;
mod warm;
