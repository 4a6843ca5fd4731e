//! Reloads the configuration on SIGHUP and when its files change. An invalid file changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::components::Components;
use super::surroundings::Surroundings;
use crate::cache::reply_cache::ReplyCache;
use crate::config::{self, ConfigSource, Live};
use crate::key::{Key, KeyBuilder, Tag};
use crate::observe::logs::LevelHandle;
use crate::observe::metrics::{Metrics, ReloadResult};
use crate::process::certificate::{CertificateError, ReloadableCertificate};
use crate::serve::Tls;

/// Period of the timer if polling is off: the timer must exist, but its ticks are ignored.
const NEVER: Duration = Duration::from_hours(24);

/// Waits for reasons to reload until the process stops.
pub(super) async fn watch(reloader: Option<Reloader>) {
    let Some(reloader) = reloader.map(Arc::new) else {
        return;
    };
    let poll_every = reloader.live.load().reload.poll_every;
    let Ok(mut hangups) = signal(SignalKind::hangup()) else {
        tracing::warn!("cannot install a SIGHUP handler; configuration reload is disabled");
        return;
    };
    let mut ticks = interval(if poll_every.is_zero() { NEVER } else { poll_every });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick completes at once; the configuration has just been read.
    ticks.tick().await;
    let mut seen = reloader.fingerprint().await;
    reloader.catch_up().await;
    loop {
        let asked = tokio::select! {
            _ = hangups.recv() => true,
            _ = ticks.tick() => false,
        };
        // The fingerprint is also taken after SIGHUP, so the next tick does not reload the same files.
        let now = if asked || !poll_every.is_zero() { reloader.fingerprint().await } else { seen };
        if asked || now != seen {
            seen = now;
            reloader.reload().await;
        }
    }
}

/// The files to reload and the parts that a reload affects.
pub(super) struct Reloader {
    live: Live,
    source: ConfigSource,
    certificates: Vec<Arc<ReloadableCertificate>>,
    level: LevelHandle,
    reply_cache: Arc<ReplyCache>,
    metrics: Arc<Metrics>,
}

impl Reloader {
    /// Creates a reloader if there is a source to read again.
    pub(super) fn new(components: &Components, surroundings: &Surroundings, tls: Option<&Tls>) -> Option<Self> {
        let of_port = tls.map(Tls::certificate);
        Some(Self {
            live: components.live.clone(),
            source: surroundings.source.clone()?,
            certificates: of_port.into_iter().chain(components.client.identity()).cloned().collect(),
            level: surroundings.level.clone(),
            reply_cache: Arc::clone(&components.reply_cache),
            metrics: Arc::clone(&components.metrics),
        })
    }

    /// Returns the hash of all files. It reads them on a blocking thread.
    async fn fingerprint(self: &Arc<Self>) -> Option<Key> {
        let reloader = Arc::clone(self);
        tokio::task::spawn_blocking(move || reloader.hash_files()).await.ok()
    }

    fn hash_files(&self) -> Key {
        let mut key = KeyBuilder::new(None);
        key.part(Tag::Body, &self.source.fingerprint());
        for file in self.certificates.iter().flat_map(|certificate| certificate.files()) {
            // A file that becomes unreadable counts as changed, and the reload reports why.
            key.part(Tag::Body, &std::fs::read(file).unwrap_or_default());
        }
        key.finish()
    }

    /// Reloads if files changed between the start and the first fingerprint; polling alone would miss that change.
    async fn catch_up(self: &Arc<Self>) {
        let reloader = Arc::clone(self);
        let is_behind = tokio::task::spawn_blocking(move || reloader.is_behind()).await.unwrap_or(false);
        if is_behind {
            self.reload().await;
        }
    }

    fn is_behind(&self) -> bool {
        let read = self.source.load();
        read.map_or(true, |read| config::changes(&self.live.load(), &read) != config::Changes::default())
    }

    async fn reload(self: &Arc<Self>) {
        let reloader = Arc::clone(self);
        let reloaded = tokio::task::spawn_blocking(move || reloader.reload_now()).await.unwrap_or(false);
        self.metrics.status.config_reload(if reloaded { ReloadResult::Ok } else { ReloadResult::Failed });
    }

    fn reload_certificates(&self) -> Result<(), CertificateError> {
        // All files are read before the first pair is replaced.
        let fresh: Vec<_> = self.certificates.iter().map(|certificate| certificate.read()).collect::<Result<_, _>>()?;
        self.certificates.iter().zip(fresh).for_each(|(certificate, fresh)| certificate.replace(fresh));
        Ok(())
    }

    fn reload_now(&self) -> bool {
        let read = match self.source.load() {
            Ok(read) => read,
            Err(faults) => {
                tracing::error!("configuration reload rejected; the previous configuration stays active:\n{faults}");
                return false;
            }
        };
        // This is the last step that can reject the reload: all or nothing is applied.
        if let Err(error) = self.reload_certificates() {
            tracing::error!(
                %error,
                "configuration reload rejected; the previous configuration and its certificate stay active"
            );
            return false;
        }
        let level_before = self.live.load().log.level.clone();
        let config::Changes { live, needs_restart } = self.live.apply(read);
        // Rules for cacheability may have changed, and the reply cache does not check them again.
        self.reply_cache.clear();
        self.metrics.accounts().reprice(&self.live.load().savings);
        let level = self.live.load().log.level.clone();
        if level != level_before
            && let Err(error) = self.level.set(&level)
        {
            tracing::error!(%error, "cannot change the log level; keeping the previous one");
        }
        tracing::info!(changed = live.join(", "), waiting = needs_restart.join(", "), "configuration reloaded");
        true
    }
}
