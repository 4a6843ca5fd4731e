//! Layouts of payloads.

use crate::vector::COMPONENT_BYTES;

/// Size of the f32 at the start of some payloads.
pub(super) const FACTOR_BYTES: usize = 4;

/// Layout of a payload. The numbers are stored on disks and read by other processes, so a number is never reused for
/// another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// The components as f32.
    F32 = 0,
    /// An f32 `n`, then for each component a half `h`; the component is `h / n`, rounded to f32.
    Ratio = 1,
    /// The upper halves of the components' f32.
    Bf16 = 2,
    /// An f32 `scale`, then for each component an i8 `q`; the component is `q * scale`, rounded to f32.
    Int8 = 3,
}

impl Form {
    /// Returns the form with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::F32, Self::Ratio, Self::Bf16, Self::Int8].into_iter().find(|form| *form as u8 == number)
    }

    /// Returns the payload bytes of a vector with this many components.
    pub(super) const fn payload_bytes(self, dimension: usize) -> Option<usize> {
        match self {
            Self::F32 => dimension.checked_mul(COMPONENT_BYTES),
            Self::Bf16 => dimension.checked_mul(2),
            Self::Ratio => match dimension.checked_mul(2) {
                Some(bytes) => bytes.checked_add(FACTOR_BYTES),
                None => None,
            },
            Self::Int8 => dimension.checked_add(FACTOR_BYTES),
        }
    }
}
