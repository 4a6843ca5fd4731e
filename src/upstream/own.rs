//! A request as its caller wrote it. It goes up first where nothing is known of a server, and it is the last word where a
//! call in another form failed: its answer is what the caller would have got without vecho.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::Failure;
use super::caller::Answered;
use crate::key::Key;
use crate::wire::RequestForm;

/// Memory that is charged for something, until this is dropped.
pub type Charge = Arc<dyn Any + Send + Sync>;

/// The caller's own request. Used by `Arc`: all pieces of one fetch share it.
#[derive(Debug)]
pub struct OwnRequest {
    /// The body, byte for byte.
    pub(super) body: Bytes,
    /// The memory that the body is charged with.
    #[expect(dead_code, reason = "it is held until the body has gone")]
    charge: Charge,
    /// Its spelling.
    pub(super) form: RequestForm,
    /// For each distinct input its first position in the body.
    pub(super) firsts: Box<[usize]>,
    /// For each position in the body its distinct input.
    pub(super) slots: Box<[u32]>,
    pub(super) id: u64,
    /// What came of it as the last word, which is asked for at most once: locked meanwhile.
    pub(super) last_word: Mutex<Option<Result<Arc<Answered>, Failure>>>,
}

impl OwnRequest {
    /// The request with this body. `firsts` has for each distinct input its first position in the body, `slots` for each
    /// position its distinct input.
    pub fn new(
        (body, form, charge): (Bytes, RequestForm, Charge),
        id: u64,
        (firsts, slots): (&[usize], &[u32]),
    ) -> Arc<Self> {
        Arc::new(Self {
            body,
            charge,
            form,
            firsts: firsts.into(),
            slots: slots.into(),
            id,
            last_word: Mutex::default(),
        })
    }

    /// Equal for repetitions of one request, and almost certainly different for others.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Inputs in the body, repetitions included.
    pub(super) const fn inputs(&self) -> usize {
        self.slots.len()
    }

    /// Distinct inputs in the body.
    pub(super) const fn distinct(&self) -> usize {
        self.firsts.len()
    }

    /// Returns true if an input is in the body more than once.
    pub(super) const fn has_repetitions(&self) -> bool {
        self.inputs() > self.distinct()
    }
}

/// The id of a request for these distinct keys at these positions.
pub fn request_id(keys: &[Key], slots: &[u32]) -> u64 {
    slots.iter().fold(slots.len() as u64, |id, slot| id.rotate_left(5) ^ keys[*slot as usize].mark())
}
