//! Random bytes: those of the operating system, and the generator of the TLS library.

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
