//! Checks of `compression` and `upstream.compression`.

use crate::config::CompressionMode;
use crate::config::reader::Reader;

const MODES: [(&str, CompressionMode); 3] =
    [("auto", CompressionMode::Auto), ("on", CompressionMode::On), ("off", CompressionMode::Off)];

pub(super) fn to_callers(reader: &mut Reader) -> CompressionMode {
    reader.choice("compression", &MODES)
}

pub(super) fn from_upstream(reader: &mut Reader) -> CompressionMode {
    reader.choice("upstream.compression", &MODES)
}
