//! State of the Redis tier. Requests use the link while it is up, and skip the tier at once while it is down.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::error::LinkError;
use super::link::Link;

/// Late responses in a row until the link is closed.
const TOO_LATE: u32 = 3;

/// State of the link. Logs one line for each change.
pub(super) struct LinkStatus {
    link: watch::Sender<Option<Arc<Link>>>,
    late_in_row: AtomicU32,
    /// Reason why there is no link, while there is none.
    cause: Mutex<Option<String>>,
    /// True if the current outage has been logged. The time before the first failed attempt is not an outage.
    is_told: AtomicBool,
    is_refusing: AtomicBool,
}

impl Default for LinkStatus {
    fn default() -> Self {
        Self {
            link: watch::Sender::new(None),
            late_in_row: AtomicU32::new(0),
            cause: Mutex::default(),
            is_told: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
        }
    }
}

impl LinkStatus {
    /// Returns the link to Redis, if it is up.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone()
    }

    /// Returns the reason why there is no link.
    pub(super) fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_cause(&self, cause: Option<String>) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// Waits for a link.
    pub(super) async fn up(&self) -> Arc<Link> {
        let mut watched = self.link.subscribe();
        let link = watched.wait_for(Option::is_some).await.expect("the status must outlive those who wait for it");
        link.clone().expect("it was waited for")
    }

    /// Resolves once `link` is no longer in use.
    pub(super) async fn left(&self, link: &Arc<Link>) {
        let mut watched = self.link.subscribe();
        let is_other = |now: &Option<Arc<Link>>| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, link));
        watched.wait_for(is_other).await.expect("the status must outlive those who wait for it");
    }

    /// Starts to use a link.
    pub(super) fn set_up(&self, link: Arc<Link>) {
        // Late answers of the previous link do not count against this one.
        self.late_in_row.store(0, Ordering::Relaxed);
        self.is_told.store(false, Ordering::Relaxed);
        self.set_cause(None);
        self.link.send_replace(Some(link));
        tracing::info!("Redis answers: its tier is up");
    }

    /// Marks Redis as unreachable.
    pub(super) fn set_down(&self, error: &LinkError) {
        self.set_cause(Some(error.cause().to_owned()));
        self.link.send_replace(None);
        if !self.is_told.swap(true, Ordering::Relaxed) {
            let cause = error.cause();
            tracing::warn!(cause, "the Redis tier is down; requests continue without it");
        }
    }

    /// Records a response, which ends a row of late ones.
    pub(super) fn answered(&self) {
        self.late_in_row.store(0, Ordering::Relaxed);
    }

    /// Records a failure. One late response is not an outage, but a lost connection is.
    pub(super) fn failed(&self, link: &Arc<Link>, error: &LinkError) {
        let is_over = match error {
            LinkError::Slow(_) => self.late_in_row.fetch_add(1, Ordering::Relaxed) + 1 >= TOO_LATE,
            LinkError::Lost(_) => true,
            // Reads still work.
            LinkError::Refused(_) => false,
        };
        if is_over {
            self.cut(link, error);
        }
    }

    /// Stops using `link`, unless another link is already in use.
    pub(super) fn cut(&self, link: &Arc<Link>, error: &LinkError) {
        // A late failure of a previous link must not end its successor.
        if self.link().is_some_and(|now| Arc::ptr_eq(&now, link)) {
            self.set_down(error);
        }
    }

    /// Logs a change in whether Redis accepts writes.
    pub(super) fn takes_writes(&self, refused: Option<&LinkError>) {
        match refused {
            Some(error) if !self.is_refusing.swap(true, Ordering::Relaxed) => {
                let cause = error.cause();
                tracing::warn!(cause, "Redis rejects writes; reads continue");
            }
            None if self.is_refusing.swap(false, Ordering::Relaxed) => {
                tracing::info!("Redis accepts writes again");
            }
            _ => {}
        }
    }
}
