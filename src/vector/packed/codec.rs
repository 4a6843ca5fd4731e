//! Configured packing of vectors.

use super::form::Form;

/// Configured packing of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Half the bytes if every bit can be restored, else f32.
    #[default]
    Lossless,
    /// As lossless; vectors that lossless packing cannot shrink are rounded to bfloat16.
    Bf16,
    /// Components are rounded to 255 steps between plus and minus the largest magnitude.
    Int8,
    /// Always four bytes per component.
    F32,
}

impl Codec {
    /// Returns true if a payload of this form has lost no more precision than this codec allows. Other instances may
    /// write to shared tiers, and the disk may hold records from an earlier configuration.
    pub const fn accepts(self, form: Form) -> bool {
        match form {
            Form::F32 | Form::Ratio => true,
            Form::Bf16 => matches!(self, Self::Bf16 | Self::Int8),
            Form::Int8 => matches!(self, Self::Int8),
        }
    }
}
