//! Credentials that the upstream has accepted recently, each with the address and model of the call. In the shared
//! scope, and for callers that the claims of a token name, stored vectors are served only for these pairs, because a key
//! may be valid for one model and not for another.
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

/// The owner that the claims of a token name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    /// Hash of the claims, and of all other headers that may hold a credential.
    pub key: Key,
    /// Time from which on the token is invalid, in milliseconds since the epoch.
    pub expires_ms: u64,
}

/// Proof that the upstream accepted a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// Time until which it counts, in milliseconds since the epoch.
    pub until_ms: u64,
    /// Owner of the credential, if it is a token whose claims name the caller.
    pub owner: Option<TokenOwner>,
}

/// What is known of one accepted credential.
#[derive(Default)]
struct Accepted {
    owner: Option<TokenOwner>,
    /// Expiry of each accepted subject, in milliseconds since the epoch.
    subjects: KeyMap<u64>,
}

/// The accepted credentials.
#[derive(Default)]
pub struct AcceptedCredentials {
    known: Mutex<KeyMap<Accepted>>,
}

impl AcceptedCredentials {
    /// Notes that the upstream accepted this credential for this subject. Returns true unless it was known already.
    pub fn accept(&self, accepted_credential: AcceptedCredential, acceptance: Acceptance, now_ms: u64) -> bool {
        let Acceptance { until_ms, owner } = acceptance;
        // A token that has expired by now proves nothing about later requests.
        if until_ms <= now_ms {
            return false;
        }
        let mut known = self.lock();
        let is_new = !known.contains_key(&accepted_credential.credential);
        if is_new && known.len() >= MAX_CREDENTIALS {
            // This scan of the whole map happens only when it is full.
            known.retain(|_, accepted| accepted.holds_any(now_ms));
        }
        if is_new
            && known.len() >= MAX_CREDENTIALS
            && let Some(any) = known.keys().next().copied()
        {
            known.remove(&any);
        }
        let Accepted { owner: known_owner, subjects } = known.entry(accepted_credential.credential).or_default();
        *known_owner = owner;
        if subjects.len() >= MAX_SUBJECTS {
            subjects.clear();
        }
        subjects.insert(accepted_credential.subject, until_ms).is_none_or(|before_ms| before_ms <= now_ms)
    }

    /// Notes that the upstream does not know the credential.
    pub fn refuse(&self, credential: &Key) {
        // An unknown credential is unknown for every model, so all of its subjects go.
        self.lock().remove(credential);
    }

    /// Notes that the upstream forbids the credential this subject.
    pub fn forbid(&self, accepted_credential: &AcceptedCredential) {
        if let Some(accepted) = self.lock().get_mut(&accepted_credential.credential) {
            accepted.subjects.remove(&accepted_credential.subject);
        }
    }

    /// Returns true if the upstream's acceptance is still valid.
    pub fn holds(&self, accepted_credential: &AcceptedCredential, now_ms: u64) -> bool {
        let known = self.lock();
        let accepted = known.get(&accepted_credential.credential);
        let until_ms = accepted.and_then(|accepted| accepted.subjects.get(&accepted_credential.subject));
        until_ms.is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// Returns the owner of a token that the upstream has accepted for any subject.
    pub fn owner(&self, credential: &Key, now_ms: u64) -> Option<TokenOwner> {
        let known = self.lock();
        known.get(credential).filter(|accepted| accepted.holds_any(now_ms))?.owner
    }

    fn lock(&self) -> MutexGuard<'_, KeyMap<Accepted>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accepted {
    fn holds_any(&self, now_ms: u64) -> bool {
        self.subjects.values().any(|until_ms| now_ms < *until_ms)
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

    fn until(until_ms: u64) -> Acceptance {
        Acceptance { until_ms, owner: None }
    }

    #[test]
    fn acceptance_expires_and_a_refusal_ends_it_for_all_models() {
        let accepted_credentials = AcceptedCredentials::default();
        assert!(!accepted_credentials.holds(&accepted_credential(1, 1), 0));
        accepted_credentials.accept(accepted_credential(1, 1), until(10), 0);
        assert!(accepted_credentials.holds(&accepted_credential(1, 1), 9));
        assert!(!accepted_credentials.holds(&accepted_credential(1, 1), 10));
        accepted_credentials.accept(accepted_credential(1, 2), until(20), 0);
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
            accepted_credentials.accept(numbered(number), until(if number < 5 { 10 } else { 100 }), 0);
        }
        assert_eq!(held(9), MAX_CREDENTIALS);
        accepted_credentials.accept(numbered(MAX_CREDENTIALS), until(100), 10);
        assert_eq!(held(10), MAX_CREDENTIALS - 4, "the five whose time was over went, and no other one");
        for number in MAX_CREDENTIALS + 1..MAX_CREDENTIALS + 100 {
            accepted_credentials.accept(numbered(number), until(100), 10);
        }
        assert_eq!(accepted_credentials.lock().len(), MAX_CREDENTIALS);
    }

    #[test]
    fn renewing_a_credential_evicts_none() {
        let accepted_credentials = AcceptedCredentials::default();
        for number in 0..MAX_CREDENTIALS {
            accepted_credentials.accept(numbered(number), until(100), 0);
        }
        for number in 0..50 {
            accepted_credentials.accept(numbered(number), until(200), 10);
        }
        assert_eq!(accepted_credentials.lock().len(), MAX_CREDENTIALS);
    }

    #[test]
    fn the_models_of_one_credential_are_bounded() {
        let accepted_credentials = AcceptedCredentials::default();
        for subject in 0..=u8::MAX {
            accepted_credentials.accept(accepted_credential(1, subject), until(100), 0);
            assert!(accepted_credentials.holds(&accepted_credential(1, subject), 1), "{subject}");
            let known = accepted_credentials
                .lock()
                .get(&accepted_credential(1, subject).credential)
                .map_or(0, |known| known.subjects.len());
            assert!(known <= MAX_SUBJECTS, "{known}");
        }
    }

    #[test]
    fn acceptance_and_prohibition_concern_one_subject() {
        let accepted_credentials = AcceptedCredentials::default();
        accepted_credentials.accept(accepted_credential(1, 1), until(10), 0);
        assert!(!accepted_credentials.holds(&accepted_credential(1, 2), 1));
        assert!(!accepted_credentials.holds(&accepted_credential(2, 1), 1));
        accepted_credentials.accept(accepted_credential(1, 2), until(10), 0);
        accepted_credentials.forbid(&accepted_credential(1, 2));
        assert!(accepted_credentials.holds(&accepted_credential(1, 1), 1));
    }

    #[test]
    fn the_owner_of_a_token_is_known_while_any_subject_is_accepted() {
        let accepted_credentials = AcceptedCredentials::default();
        let credential = accepted_credential(1, 1).credential;
        let owner = Some(TokenOwner { key: accepted_credential(2, 1).credential, expires_ms: 20 });
        assert!(accepted_credentials.accept(accepted_credential(1, 1), Acceptance { until_ms: 10, owner }, 0));
        assert!(accepted_credentials.accept(accepted_credential(1, 2), Acceptance { until_ms: 20, owner }, 0));
        assert!(!accepted_credentials.accept(accepted_credential(1, 2), Acceptance { until_ms: 20, owner }, 1));
        for (now_ms, expected) in [(0, owner), (19, owner), (20, None)] {
            assert_eq!(accepted_credentials.owner(&credential, now_ms), expected, "{now_ms}");
        }
        accepted_credentials.refuse(&credential);
        assert_eq!(accepted_credentials.owner(&credential, 0), None);
    }

    #[test]
    fn an_expired_acceptance_is_not_kept() {
        let accepted_credentials = AcceptedCredentials::default();
        assert!(!accepted_credentials.accept(accepted_credential(1, 1), until(5), 5));
        assert!(accepted_credentials.lock().is_empty());
    }
}
