//! Tests of every route of the ops port, with real parts that are built small.

mod client;
mod dashboard;
mod figures;
mod openapi;
mod parts;
mod routing;
mod steering;
