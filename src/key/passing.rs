//! Keys that mean nothing beyond this process, made several times as fast as those that are kept.
//!
//! A GMAC instead of a hash: under a secret that never leaves the process, two different texts of up to n bytes meet
//! with a probability of at most (n / 16 + 2) / 2^128, whoever wrote them. That holds as long as nobody is shown a MAC,
//! and nobody is; so one nonce serves for all.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;

/// Bytes of a MAC.
pub(super) const MAC_BYTES: usize = 16;

/// What the keys of this process are made with.
pub struct PassingSecret(LessSafeKey);

impl PassingSecret {
    /// A secret that no other process has.
    pub fn new() -> Self {
        let mut secret = [0; 16];
        rand::fill(&mut secret).expect("the operating system must have random bytes");
        let secret = UnboundKey::new(&AES_128_GCM, &secret).expect("sixteen bytes must be a key");
        Self(LessSafeKey::new(secret))
    }

    /// The MAC of some bytes.
    pub(super) fn mac(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(bytes), &mut []);
        let mac = sealed.expect("an empty text must be sealable");
        mac.as_ref().try_into().expect("a MAC must have sixteen bytes")
    }
}

impl Default for PassingSecret {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PassingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassingSecret")
    }
}
