//! One cell of the matrix: a server dialect, a client request, and the expected outcome.

use super::dialect::Dialect;
use super::received::Received;
use super::requests::ClientRequest;

/// The outcome of the second identical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The answer is cached.
    Hit,
    /// Each request passes through for this reason, with the same answer as a direct request.
    Bypass(&'static str),
    /// The server refuses the caller's own bytes. Each request causes one call and gets the server's status and body.
    Refused,
    /// The server fails with a 5xx. The reply has its status and body, after a few attempts at most, and is not a mock.
    Fails,
    /// The server refuses this many inputs in one call. vecho splits the request and caches its vectors.
    Cut,
    /// The vectors are right or equal to the direct ones. The row makes no claim about the cache, for this reason.
    AsDirect(&'static str),
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) dialect: Dialect,
    pub(crate) request: ClientRequest,
    pub(crate) expect: Expect,
    /// The path of the request to vecho.
    pub(crate) path: &'static str,
    /// The path of the direct request to the server.
    pub(crate) direct_path: &'static str,
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// Returns a row whose client uses the path of the server.
pub(crate) fn row(dialect: Dialect, request: ClientRequest, expect: Expect) -> Row {
    let path = dialect.path;
    Row { dialect, request, expect, path, direct_path: path, settings: Vec::new() }
}

impl Row {
    /// Sets the path of the request to vecho.
    pub(crate) fn at(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    /// Sets the path of both requests.
    pub(crate) fn everywhere_at(mut self, path: &'static str) -> Self {
        (self.path, self.direct_path) = (path, path);
        self
    }

    /// Sets a configuration key of vecho.
    pub(crate) fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.settings.push((key, value));
        self
    }

    /// Returns the server's vectors for a round, without applying its limits.
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
