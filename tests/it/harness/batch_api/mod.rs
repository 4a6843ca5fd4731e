//! A stub of the Batch API: files and batches in memory, with scripted faults. It also answers embeddings requests, and
//! counts them, so a test sees that none was needed.

mod fault;
mod http;
mod routes;
mod service;
mod stub;

pub(crate) use fault::{Fault, Moment};
pub(crate) use service::{Ending, Refusal, StoredBatch};
pub(crate) use stub::BatchStub;
