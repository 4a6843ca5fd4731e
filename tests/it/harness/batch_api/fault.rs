//! Faults of the stub.

use std::time::Duration;

use super::http::BatchRequest;

/// A fault in the answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers this status and code; the request has no effect.
    Status(u16, &'static str),
    /// Closes the connection before the request has an effect.
    DropBefore,
    /// Closes the connection after the request had its effect.
    DropAfter,
    /// Answers late.
    Delay(Duration),
}

/// A fault for the next request whose method and path begin so.
#[derive(Clone, Debug)]
pub(crate) struct NextFault {
    pub(crate) wanted: &'static str,
    pub(crate) fault: Fault,
}

/// Moment of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the request has an effect.
    Before,
    /// After the request had its effect, before the answer.
    After,
}

impl NextFault {
    pub(crate) fn concerns(&self, request: &BatchRequest) -> bool {
        format!("{} {}", request.method, request.path()).starts_with(self.wanted)
    }
}
