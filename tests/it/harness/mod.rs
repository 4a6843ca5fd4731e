//! The shared harness: an upstream that can misbehave, the real binary in front of it, and clients.

pub(crate) mod batch_api;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod encode;
pub(crate) mod frames;
pub(crate) mod front;
pub(crate) mod http2;
pub(crate) mod inside;
pub(crate) mod nghttpx;
pub(crate) mod ops;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod script;
pub(crate) mod scripted;
pub(crate) mod socket;
pub(crate) mod stub;
pub(crate) mod tinyproxy;
pub(crate) mod tls;
pub(crate) mod vecho;
pub(crate) mod wait;

pub(crate) use client::Client;
pub(crate) use collector::Collector;
pub(crate) use front::Front;
pub(crate) use inside::Inside;
pub(crate) use stub::{Behaviour, Stub};
pub(crate) use vecho::Vecho;
pub(crate) use wait::eventually;
