//! Keys that are valid only within this process, and several times as fast to compute as stored keys.
//!
//! They are a GMAC instead of a hash. Under a secret that never leaves the process, two different texts of up to n
//! bytes collide with a probability of at most (n / 16 + 2) / 2^128, even if an attacker chose them. This holds as long
//! as no MAC is ever revealed. None is, so one nonce serves for all.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::process::random;

/// Size of a MAC in bytes.
pub(super) const MAC_BYTES: usize = 16;

/// Secret of this process for keys that only this process uses.
pub struct ProcessSecret(LessSafeKey);

impl ProcessSecret {
    /// Creates a random secret.
    pub fn new() -> Self {
        let mut secret = [0; 16];
        // The generator of the TLS library would be as good, but seeding it delays the start.
        random::fill(&mut secret);
        let secret = UnboundKey::new(&AES_128_GCM, &secret).expect("sixteen bytes must be a key");
        Self(LessSafeKey::new(secret))
    }

    /// Returns the MAC of `bytes`.
    pub(super) fn mac(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        // One nonce serves for all MACs, because none of them is ever revealed.
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        // GCM over an empty text, with the bytes as associated data, is GMAC.
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(bytes), &mut []);
        let mac = sealed.expect("an empty text must be sealable");
        mac.as_ref().try_into().expect("a MAC must have sixteen bytes")
    }
}

impl Default for ProcessSecret {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ProcessSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessSecret")
    }
}
