//! The components of a vector, and their validation.

use std::sync::Arc;

/// Bytes of one component.
pub const COMPONENT_BYTES: usize = 4;

/// One embedding. Cheap to clone. Its bytes are those that a base64 answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector(Arc<[u8]>);

/// Reason why some numbers are not a valid vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAVector {
    /// There is no component.
    #[error("it has no component")]
    Empty,
    /// The byte length is not a multiple of four.
    #[error("its length is not a whole number of f32")]
    Ragged,
    /// A component is NaN or infinite.
    #[error("a component is not finite")]
    NotFinite,
    /// All components are zero.
    #[error("all components are zero")]
    AllZero,
}

impl Vector {
    /// Creates a vector from f32 components in little-endian order.
    pub fn from_le_bytes(bytes: &[u8]) -> Result<Self, NotAVector> {
        Self::from_shared(Arc::from(bytes))
    }

    /// Creates a vector from shared bytes, without a copy.
    pub fn from_shared(bytes: Arc<[u8]>) -> Result<Self, NotAVector> {
        if bytes.is_empty() {
            return Err(NotAVector::Empty);
        }
        if !bytes.len().is_multiple_of(COMPONENT_BYTES) {
            return Err(NotAVector::Ragged);
        }
        // The loop has no early exit, which lets the compiler vectorise it.
        let (mut is_finite, mut magnitude_bits) = (true, 0);
        for component in bytes.as_chunks::<COMPONENT_BYTES>().0 {
            let magnitude = f32::from_le_bytes(*component).abs();
            // The comparison is also false for NaN.
            is_finite &= magnitude < f32::INFINITY;
            // The sign is cleared, so -0.0 counts as zero.
            magnitude_bits |= magnitude.to_bits();
        }
        if !is_finite {
            return Err(NotAVector::NotFinite);
        }
        if magnitude_bits == 0 {
            return Err(NotAVector::AllZero);
        }
        Ok(Self(bytes))
    }

    /// Creates a vector from components as numbers.
    pub fn from_components(components: &[f32]) -> Result<Self, NotAVector> {
        let mut bytes = Vec::with_capacity(components.len() * COMPONENT_BYTES);
        for component in components {
            bytes.extend_from_slice(&component.to_le_bytes());
        }
        Self::from_le_bytes(&bytes)
    }

    /// Creates a vector from components as numbers, scaled to unit length.
    pub fn of_unit_length(components: &[f32]) -> Result<Self, NotAVector> {
        // A sum of thousands of squares loses precision in f32.
        let length = components.iter().map(|component| f64::from(*component).powi(2)).sum::<f64>().sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "a component of a unit vector fits an f32")]
        let scaled: Vec<f32> = components.iter().map(|component| (f64::from(*component) / length) as f32).collect();
        Self::from_components(&scaled)
    }

    /// Creates a vector from the bytes of an earlier one, which its packed form kept unchanged. They have passed
    /// [`Vector::from_le_bytes`] before, so nothing is checked again.
    pub(crate) const fn from_checked(bytes: Arc<[u8]>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, without a copy.
    pub(crate) fn into_shared(self) -> Arc<[u8]> {
        self.0
    }

    /// Returns the components as little-endian bytes.
    pub fn as_le_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the number of components.
    pub fn dimension(&self) -> usize {
        self.0.len() / COMPONENT_BYTES
    }

    /// Iterates over the components as numbers, in order.
    pub fn components(&self) -> impl Iterator<Item = f32> + '_ {
        self.0.as_chunks::<COMPONENT_BYTES>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_vectors_are_refused_with_a_named_cause() {
        assert_eq!(Vector::from_le_bytes(&[]), Err(NotAVector::Empty));
        assert_eq!(Vector::from_le_bytes(&[0; 6]), Err(NotAVector::Ragged));
        assert_eq!(Vector::from_components(&[0.1, f32::NAN]), Err(NotAVector::NotFinite));
        assert_eq!(Vector::from_components(&[f32::INFINITY]), Err(NotAVector::NotFinite));
        assert_eq!(Vector::from_components(&[0.0, -0.0]), Err(NotAVector::AllZero));
    }

    #[test]
    fn components_keep_their_bits() {
        let components = [1.0e-40_f32, -0.0, 3.5, f32::MIN_POSITIVE];
        let vector = Vector::from_components(&components).expect("finite and not all zero");
        let read: Vec<u32> = vector.components().map(f32::to_bits).collect();
        assert_eq!(read, components.map(f32::to_bits));
    }
}
