//! One cell of the matrix: a server dialect, a client request, and the expected outcome.

use super::dialect::Dialect;
use super::received::Received;
use super::requests::ClientRequest;

/// The outcome of the second identical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The answer is cached.
    Hit,
    /// It passes through for this reason, each time as it would directly.
    Bypass(&'static str),
    /// The server refuses the caller's own bytes: one call each time, with the server's status and body.
    Refused,
    /// The server fails with a 5xx: its status and body, after a few tries at most, and no mock.
    Fails,
    /// The server refuses so many inputs in one call; vecho cuts the request and caches it.
    Cut,
    /// The vectors are right or as they are directly; no claim on the cache is made, for this reason.
    AsDirect(&'static str),
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) dialect: Dialect,
    pub(crate) request: ClientRequest,
    pub(crate) expect: Expect,
    /// The path that the client asks vecho for.
    pub(crate) path: &'static str,
    /// The path that the client asks the server for directly.
    pub(crate) direct_path: &'static str,
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// A row whose client keeps the path of the server.
pub(crate) fn row(dialect: Dialect, request: ClientRequest, expect: Expect) -> Row {
    let path = dialect.path;
    Row { dialect, request, expect, path, direct_path: path, settings: Vec::new() }
}

impl Row {
    /// The client asks vecho for another path.
    pub(crate) fn at(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    /// The client asks both for this path.
    pub(crate) fn everywhere_at(mut self, path: &'static str) -> Self {
        (self.path, self.direct_path) = (path, path);
        self
    }

    /// vecho runs with this key set.
    pub(crate) fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.settings.push((key, value));
        self
    }

    /// The server's vectors for a round, whatever its limits.
    pub(crate) fn vectors(&self, round: usize) -> Vec<Vec<f32>> {
        let (head, ()) = http::Request::post(self.dialect.path).body(()).expect("a path is legal").into_parts();
        self.dialect.draft(&Received::read(&head, self.request.body(self.dialect.model, round))).vectors()
    }

    pub(crate) fn name(&self) -> String {
        let path = if self.path == self.dialect.path { String::new() } else { format!(" at {}", self.path) };
        let settings: Vec<String> = self.settings.iter().map(|(key, value)| format!(" with {key}={value}")).collect();
        format!("{} x {}{path}{}", self.dialect.name, self.request.name, settings.concat())
    }
}
