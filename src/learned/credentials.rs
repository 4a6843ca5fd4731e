//! Credentials that the upstream has accepted recently, each with the address and model of the call. In the shared
//! scope, stored vectors are served only for these pairs, because a key may be valid for one model and not for another.
//!
//! The map is not an [`ExpiringMap`](crate::process::expiring::ExpiringMap). Each hit of the shared scope reads it, and
//! a read of that map costs seven times as many instructions, because the library notes it for housekeeping. Expired
//! entries must also make room before valid ones at once, and by the clock of this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key::{Key, KeyMap};

/// Maximum number of credentials. Beyond it expired ones are removed, then an arbitrary one.
const MAX_CREDENTIALS: usize = 10_000;

/// Maximum number of models per credential. Beyond it all of them are forgotten, which costs one call each.
const MAX_SUBJECTS: usize = 64;

/// A credential and the subject of its calls, both as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedCredential {
    /// Hash of the credential.
    pub credential: Key,
    /// Hash of address and model.
    pub subject: Key,
}

/// Expiry of each accepted subject, in milliseconds since the epoch.
type Subjects = KeyMap<u64>;

/// The accepted credentials.
#[derive(Default)]
pub struct AcceptedCredentials {
    until_ms: Mutex<KeyMap<Subjects>>,
}

impl AcceptedCredentials {
    /// Notes that the upstream accepted this credential for this subject, until `until_ms`.
    pub fn accept(&self, accepted_credential: AcceptedCredential, until_ms: u64, now_ms: u64) {
        let mut known = self.lock();
        let is_new = !known.contains_key(&accepted_credential.credential);
        if is_new && known.len() >= MAX_CREDENTIALS {
            // This scan of the whole map happens only when it is full.
            known.retain(|_, subjects| subjects.values().any(|until_ms| *until_ms > now_ms));
        }
        if is_new
            && known.len() >= MAX_CREDENTIALS
            && let Some(any) = known.keys().next().copied()
        {
            known.remove(&any);
        }
        let subjects = known.entry(accepted_credential.credential).or_default();
        if subjects.len() >= MAX_SUBJECTS {
            subjects.clear();
        }
        subjects.insert(accepted_credential.subject, until_ms);
    }

    /// Notes that the upstream does not know the credential.
    pub fn refuse(&self, credential: &Key) {
        // An unknown credential is unknown for every model, so all of its subjects go.
        self.lock().remove(credential);
    }

    /// Notes that the upstream forbids the credential this subject.
    pub fn forbid(&self, accepted_credential: &AcceptedCredential) {
        if let Some(subjects) = self.lock().get_mut(&accepted_credential.credential) {
            subjects.remove(&accepted_credential.subject);
        }
    }

    /// Returns true if the upstream's acceptance is still valid.
    pub fn holds(&self, accepted_credential: &AcceptedCredential, now_ms: u64) -> bool {
        let known = self.lock();
        let until_ms =
            known.get(&accepted_credential.credential).and_then(|subjects| subjects.get(&accepted_credential.subject));
        until_ms.is_some_and(|until_ms| now_ms < *until_ms)
    }

    fn lock(&self) -> MutexGuard<'_, KeyMap<Subjects>> {
        self.until_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyBuilder, Tag};

    fn accepted_credential(credential: u8, subject: u8) -> AcceptedCredential {
        let root = KeyBuilder::new(None).finish();
        AcceptedCredential {
            credential: root.extend(Tag::Scope, &[credential]),
            subject: root.extend(Tag::Model, &[subject]),
        }
    }

    #[test]
    fn acceptance_expires_and_a_refusal_ends_it_for_all_models() {
        let accepted_credentials = AcceptedCredentials::default();
        assert!(!accepted_credentials.holds(&accepted_credential(1, 1), 0));
        accepted_credentials.accept(accepted_credential(1, 1), 10, 0);
        assert!(accepted_credentials.holds(&accepted_credential(1, 1), 9));
        assert!(!accepted_credentials.holds(&accepted_credential(1, 1), 10));
        accepted_credentials.accept(accepted_credential(1, 2), 20, 0);
        accepted_credentials.refuse(&accepted_credential(1, 1).credential);
        assert!(!accepted_credentials.holds(&accepted_credential(1, 2), 1));
    }

    fn numbered(number: usize) -> AcceptedCredential {
        let credential = accepted_credential(1, 1).credential.extend(Tag::Scope, &number.to_le_bytes());
        AcceptedCredential { credential, ..accepted_credential(1, 1) }
    }

    #[test]
    fn credentials_are_bounded_and_expired_ones_are_evicted_first() {
        let accepted_credentials = AcceptedCredentials::default();
        let held = |now_ms| {
            (0..=MAX_CREDENTIALS).filter(|number| accepted_credentials.holds(&numbered(*number), now_ms)).count()
        };
        for number in 0..MAX_CREDENTIALS {
            accepted_credentials.accept(numbered(number), if number < 5 { 10 } else { 100 }, 0);
        }
        assert_eq!(held(9), MAX_CREDENTIALS);
        accepted_credentials.accept(numbered(MAX_CREDENTIALS), 100, 10);
        assert_eq!(held(10), MAX_CREDENTIALS - 4, "the five whose time was over went, and no other one");
        for number in MAX_CREDENTIALS + 1..MAX_CREDENTIALS + 100 {
            accepted_credentials.accept(numbered(number), 100, 10);
        }
        assert_eq!(accepted_credentials.lock().len(), MAX_CREDENTIALS);
    }

    #[test]
    fn renewing_a_credential_evicts_none() {
        let accepted_credentials = AcceptedCredentials::default();
        for number in 0..MAX_CREDENTIALS {
            accepted_credentials.accept(numbered(number), 100, 0);
        }
        for number in 0..50 {
            accepted_credentials.accept(numbered(number), 200, 10);
        }
        assert_eq!(accepted_credentials.lock().len(), MAX_CREDENTIALS);
    }

    #[test]
    fn the_models_of_one_credential_are_bounded() {
        let accepted_credentials = AcceptedCredentials::default();
        for subject in 0..=u8::MAX {
            accepted_credentials.accept(accepted_credential(1, subject), 100, 0);
            assert!(accepted_credentials.holds(&accepted_credential(1, subject), 1), "{subject}");
            let known =
                accepted_credentials.lock().get(&accepted_credential(1, subject).credential).map_or(0, KeyMap::len);
            assert!(known <= MAX_SUBJECTS, "{known}");
        }
    }

    #[test]
    fn acceptance_and_prohibition_concern_one_subject() {
        let accepted_credentials = AcceptedCredentials::default();
        accepted_credentials.accept(accepted_credential(1, 1), 10, 0);
        assert!(!accepted_credentials.holds(&accepted_credential(1, 2), 1));
        assert!(!accepted_credentials.holds(&accepted_credential(2, 1), 1));
        accepted_credentials.accept(accepted_credential(1, 2), 10, 0);
        accepted_credentials.forbid(&accepted_credential(1, 2));
        assert!(accepted_credentials.holds(&accepted_credential(1, 1), 1));
    }
}
