//! Compression of answers, to callers and from the upstream.

/// `compression`, `upstream.compression`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionMode {
    /// Where the network is slow enough, as far as addresses show it.
    Auto,
    /// Always, if the other side agrees.
    On,
    /// Never.
    Off,
}
