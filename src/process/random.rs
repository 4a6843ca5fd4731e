//! Random bytes and numbers: those of the operating system, the generator of the TLS library, and a quick one.

use std::hash::{BuildHasher as _, RandomState};

use std::fmt::Write;

use aws_lc_rs::rand;

/// Fills `bytes` with random bytes of the operating system.
pub fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system must have random bytes");
}

/// Returns `bytes` random bytes as lower-case hexadecimal digits.
pub fn hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    fill(&mut random);
    random.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("writing to a String must succeed");
        digits
    })
}

/// Seeds the TLS library's generator, which measures the jitter of the processor for about 30 ms. Without this call the
/// first TLS handshake does so. Blocks.
pub fn seed_tls() {
    // If this fails, the first handshake fails too and is reported.
    rand::fill(&mut [0]).ok();
}

/// Returns an evenly distributed number in `0..1`, for jitter. Its quality hardly matters; two processes must merely
/// differ.
pub fn fraction() -> f64 {
    // Each `RandomState` has keys of its own, so the hash of a constant is a random number.
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit the mantissa")]
    let fraction = bits as f64 / (1_u64 << 53) as f64;
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_fraction_is_between_zero_and_one() {
        assert!((0..1_000).map(|_| fraction()).all(|fraction| (0.0..1.0).contains(&fraction)));
    }
}
