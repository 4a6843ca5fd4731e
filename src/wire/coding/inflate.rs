//! Steps of a decoder, and those of deflate, which two codings use.

use flate2::{Decompress, FlushDecompress, Status};

use super::undecodable::Undecodable;

/// Maximum input that one step reads, and maximum output that it writes.
pub(super) const STEP_BYTES: usize = 64 * 1024;

/// Progress of a decoder.
pub(super) struct Advance {
    /// Bytes of input that it read.
    pub(super) read: usize,
    /// Bytes of output that it wrote.
    pub(super) written: usize,
    /// True if the input that was read so far is a complete body.
    pub(super) is_complete: bool,
}

/// Decodes a part of a deflate stream.
pub(super) fn inflate(decoder: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<Advance, Undecodable> {
    // The decoder reports only totals, so the progress of one step is a difference.
    let (read_before, written_before) = (decoder.total_in(), decoder.total_out());
    let status = decoder.decompress(first_step(input), output, FlushDecompress::None).map_err(|_| Undecodable)?;
    Ok(Advance {
        read: count(decoder.total_in() - read_before),
        written: count(decoder.total_out() - written_before),
        is_complete: status == Status::StreamEnd,
    })
}

/// Returns the part of the input for one step.
pub(super) fn first_step(input: &[u8]) -> &[u8] {
    &input[..input.len().min(STEP_BYTES)]
}

fn count(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a step must be shorter than the address space")
}
