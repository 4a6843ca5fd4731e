//! A request as its caller wrote it. It is sent first if nothing is known of a server. It is also the last resort after
//! a call in another form has failed, because its answer is what the caller would have got without vecho.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::Failure;
use super::answered::Answered;
use crate::key::Key;
use crate::wire::RequestForm;

/// Memory reservation that ends when this is dropped.
pub type Charge = Arc<dyn Any + Send + Sync>;

/// The caller's own request. All pieces of one fetch share it by `Arc`.
#[derive(Debug)]
pub struct OwnRequest {
    /// The original bytes of the body.
    pub(super) body: Bytes,
    /// Memory reservation for the body.
    #[expect(dead_code, reason = "it is held until the body has gone")]
    charge: Charge,
    /// Its spelling.
    pub(super) form: RequestForm,
    /// For each distinct input, its first position in the body.
    pub(super) firsts: Box<[usize]>,
    /// For each position in the body, its distinct input.
    pub(super) slots: Box<[u32]>,
    pub(super) id: u64,
    /// Result of sending this request after a call in another form has failed, which happens at most once. Locked
    /// during the call.
    pub(super) original_request_result: Mutex<Option<Result<Arc<Answered>, Failure>>>,
}

impl OwnRequest {
    /// Creates the request with this body. `firsts` holds the first position in the body of each distinct input,
    /// `slots` the distinct input of each position.
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
            original_request_result: Mutex::default(),
        })
    }

    /// Returns its id, which is equal for repetitions of one request and almost certainly different for others.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Returns the number of inputs in the body, including repetitions.
    pub(super) const fn inputs(&self) -> usize {
        self.slots.len()
    }

    /// Returns the number of distinct inputs in the body.
    pub(super) const fn distinct(&self) -> usize {
        self.firsts.len()
    }

    /// Returns true if the body repeats an input.
    pub(super) const fn has_repetitions(&self) -> bool {
        self.inputs() > self.distinct()
    }
}

/// Returns the id of a request for these distinct keys at these positions.
pub fn request_id(keys: &[Key], slots: &[u32]) -> u64 {
    // The rotation makes the order of the inputs count, which a plain XOR would ignore.
    slots.iter().fold(slots.len() as u64, |id, slot| id.rotate_left(5) ^ keys[*slot as usize].mark())
}
