//! A packed vector: packing and unpacking.

use std::sync::Arc;

use super::codec::Codec;
use super::form::{FACTOR_BYTES, Form};
use super::{int8, ratio, rounded};
use crate::vector::{COMPONENT_BYTES, NotAVector, Vector};

/// Components that are unpacked at once: a small block that fits the L1 cache, and a whole number of base64 groups.
const BLOCK_COMPONENTS: usize = 384;

/// A packed vector. Cheap to clone. It always unpacks to a valid [`Vector`], whatever bytes it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub(super) form: Form,
    pub(super) payload: Arc<[u8]>,
}

/// Reason why bytes are not a packed vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPacked {
    /// The payload's length does not match form and dimension.
    #[error("its length is not that of its form and dimension")]
    Length,
    /// The factor in front of the components is one that packing never writes.
    #[error("its factor is out of range")]
    Factor,
    /// The payload unpacks to an invalid vector.
    #[error(transparent)]
    Vector(#[from] NotAVector),
}

impl Packed {
    /// Packs a vector. It is kept as f32 if packing would make a component infinite or all components zero.
    pub fn pack(vector: &Vector, codec: Codec) -> Self {
        let packed = match codec {
            Codec::F32 => None,
            Codec::Lossless => Self::smaller(Form::Ratio, ratio::pack(vector)),
            // The ratio form takes the same bytes as bfloat16, apart from its factor, and is exact.
            Codec::Bf16 => Self::smaller(Form::Ratio, ratio::pack(vector))
                .or_else(|| Self::smaller(Form::Bf16, rounded::pack(vector))),
            Codec::Int8 => Self::smaller(Form::Int8, int8::pack(vector)),
        };
        packed.unwrap_or_else(|| Self::from(vector.clone()))
    }

    fn smaller(form: Form, payload: Option<Arc<[u8]>>) -> Option<Self> {
        payload.map(|payload| Self { form, payload })
    }

    /// Builds a packed vector from the results of [`form`](Self::form), [`dimension`](Self::dimension) and
    /// [`payload`](Self::payload).
    pub fn from_parts(form: Form, dimension: usize, payload: &[u8]) -> Result<Self, NotPacked> {
        if form.payload_bytes(dimension) != Some(payload.len()) {
            return Err(NotPacked::Length);
        }
        let is_sound = match form {
            Form::F32 => return Ok(Self::from(Vector::from_le_bytes(payload)?)),
            Form::Bf16 => true,
            Form::Ratio => ratio::is_sound(payload),
            Form::Int8 => int8::is_sound(payload),
        };
        if !is_sound {
            return Err(NotPacked::Factor);
        }
        let packed = Self { form, payload: Arc::from(payload) };
        // Validated once here, so `unpack` never meets an invalid vector.
        Vector::from_le_bytes(&packed.unpacked_bytes())?;
        Ok(packed)
    }

    /// Returns the unpacked vector.
    pub fn unpack(&self) -> Vector {
        if self.form == Form::F32 {
            // These bytes were validated when the packed vector was made.
            return Vector::from_checked(Arc::clone(&self.payload));
        }
        Vector::from_le_bytes(&self.unpacked_bytes()).expect("what was packed must unpack")
    }

    /// Passes the components to `take` as little-endian f32, in order and in pieces. The length of each piece except
    /// the last is a multiple of twelve bytes, so each can be written as base64 separately.
    pub fn for_each_piece(&self, mut take: impl FnMut(&[u8])) {
        if self.form == Form::F32 {
            return take(&self.payload);
        }
        // The block is on the stack, so no memory is allocated for the pieces.
        let (mut block, mut at) = ([0; BLOCK_COMPONENTS * COMPONENT_BYTES], 0);
        let dimension = self.dimension();
        while at < dimension {
            let until = dimension.min(at + BLOCK_COMPONENTS);
            let piece = &mut block[..(until - at) * COMPONENT_BYTES];
            self.unpack_part(at, piece.as_chunks_mut().0);
            take(piece);
            at = until;
        }
    }

    /// Appends the components as little-endian f32.
    pub fn write_le_bytes(&self, out: &mut Vec<u8>) {
        out.reserve(self.dimension() * COMPONENT_BYTES);
        self.for_each_piece(|piece| out.extend_from_slice(piece));
    }

    fn unpacked_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_le_bytes(&mut bytes);
        bytes
    }

    /// Unpacks as many components as `out` holds, starting at component `at`.
    fn unpack_part(&self, at: usize, out: &mut [[u8; COMPONENT_BYTES]]) {
        match self.form {
            Form::F32 => out.copy_from_slice(&self.payload.as_chunks().0[at..at + out.len()]),
            Form::Ratio => ratio::unpack(&self.payload, at, out),
            Form::Bf16 => rounded::unpack(&self.payload, at, out),
            Form::Int8 => int8::unpack(&self.payload, at, out),
        }
    }

    /// Returns the number of components.
    pub fn dimension(&self) -> usize {
        let bytes = self.payload.len();
        match self.form {
            Form::F32 => bytes / COMPONENT_BYTES,
            Form::Bf16 => bytes / 2,
            Form::Ratio => (bytes - FACTOR_BYTES) / 2,
            Form::Int8 => bytes - FACTOR_BYTES,
        }
    }

    /// Returns the layout of the payload.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Returns the packed bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Keeps the numbers as they are, in the same memory.
impl From<Vector> for Packed {
    fn from(vector: Vector) -> Self {
        Self { form: Form::F32, payload: vector.into_shared() }
    }
}
