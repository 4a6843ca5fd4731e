//! Whether Redis works: requests ask it while it does, and know at once when it does not.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::link::Link;
use super::trouble::Trouble;

/// Answers in a row that come too late, until nobody asks any more.
const TOO_LATE: u32 = 3;

/// The state, and the only place that tells of its changes: one line for each.
pub(super) struct Switch {
    link: watch::Sender<Option<Arc<Link>>>,
    late_in_row: AtomicU32,
    /// Why there is no way to Redis, while there is none.
    cause: Mutex<Option<String>>,
    /// Whether the present outage has been told of. The start is none until the first try fails.
    is_told: AtomicBool,
    is_refusing: AtomicBool,
}

impl Default for Switch {
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

impl Switch {
    /// The way to Redis, while there is one.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone()
    }

    /// Why there is none.
    pub(super) fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_cause(&self, cause: Option<String>) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// Waits for a way to Redis.
    pub(super) async fn up(&self) -> Arc<Link> {
        let mut watched = self.link.subscribe();
        let link = watched.wait_for(Option::is_some).await.expect("the switch must outlive those who wait for it");
        link.clone().expect("it was waited for")
    }

    /// Resolves once `link` is not in use any more.
    pub(super) async fn left(&self, link: &Arc<Link>) {
        let mut watched = self.link.subscribe();
        let is_other = |now: &Option<Arc<Link>>| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, link));
        watched.wait_for(is_other).await.expect("the switch must outlive those who wait for it");
    }

    /// From now on it is asked.
    pub(super) fn set_up(&self, link: Arc<Link>) {
        self.late_in_row.store(0, Ordering::Relaxed);
        self.is_told.store(false, Ordering::Relaxed);
        self.set_cause(None);
        self.link.send_replace(Some(link));
        tracing::info!("Redis answers: its tier is up");
    }

    /// It cannot be reached.
    pub(super) fn set_down(&self, trouble: &Trouble) {
        self.set_cause(Some(trouble.cause().to_owned()));
        self.link.send_replace(None);
        if !self.is_told.swap(true, Ordering::Relaxed) {
            let cause = trouble.cause();
            tracing::warn!(cause, "the Redis tier is down: requests go on without it until it is back");
        }
    }

    /// Something was answered over a link.
    pub(super) fn answered(&self) {
        self.late_in_row.store(0, Ordering::Relaxed);
    }

    /// Something was not. One answer that is late is no outage; a connection that is gone is.
    pub(super) fn failed(&self, link: &Arc<Link>, trouble: &Trouble) {
        let is_over = match trouble {
            Trouble::Slow(_) => self.late_in_row.fetch_add(1, Ordering::Relaxed) + 1 >= TOO_LATE,
            Trouble::Lost(_) => true,
            Trouble::Refused(_) => false,
        };
        if is_over {
            self.cut(link, trouble);
        }
    }

    /// Leaves `link`, unless another one is in use already.
    pub(super) fn cut(&self, link: &Arc<Link>, trouble: &Trouble) {
        if self.link().is_some_and(|now| Arc::ptr_eq(&now, link)) {
            self.set_down(trouble);
        }
    }

    /// Whether it takes what is written.
    pub(super) fn takes_writes(&self, refused: Option<&Trouble>) {
        match refused {
            Some(trouble) if !self.is_refusing.swap(true, Ordering::Relaxed) => {
                let cause = trouble.cause();
                tracing::warn!(cause, "Redis takes nothing: new vectors are not shared, what it holds is still used");
            }
            None if self.is_refusing.swap(false, Ordering::Relaxed) => {
                tracing::info!("Redis takes new vectors again");
            }
            _ => {}
        }
    }
}
