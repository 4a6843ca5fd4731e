//! Pacing: calls wait for their turn inside the service's rate limits, and interactive calls go before bulk ones.

mod ends;
mod ground;
mod header;
mod job;
mod limits;
mod priority;
mod queues;
mod refusals;
mod replicas;
mod separate;
