//! Format and level of the log, and changes of the level at runtime.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::throttled::{Foreign, Throttled};
use crate::config::{BadLevel, LogFormat, parse_log_level};

/// Reason why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The level is invalid.
    #[error(transparent)]
    Level(#[from] BadLevel),
    /// Logging is already set up in this process.
    #[error("logging is set up already")]
    Twice,
}

/// Handle that changes the log level at runtime. Cheap to clone; clones control the same log.
#[derive(Clone)]
pub struct LevelHandle {
    current: Arc<Mutex<String>>,
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    throttled: Throttled,
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelHandle").field("current", &self.current()).finish_non_exhaustive()
    }
}

impl LevelHandle {
    /// Creates a handle that checks and stores levels without effect, for an application embedded in another one.
    pub fn detached() -> Self {
        Self { current: Arc::new(Mutex::new("info".to_owned())), filter: None, throttled: Throttled::default() }
    }

    /// Sets the level: a level name, or a filter such as `info,vecho::upstream=debug`.
    pub fn set(&self, level: &str) -> Result<(), BadLevel> {
        let filter = parse_log_level(level)?;
        // The lock is held during the reload, so the stored text always matches the filter.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &self.filter {
            handle.reload(filter).map_err(|error| BadLevel::new(level, &error))?;
        }
        level.clone_into(&mut current);
        Ok(())
    }

    /// Returns the limiter of repeated lines.
    pub const fn throttled(&self) -> &Throttled {
        &self.throttled
    }

    /// Returns the current level as it was set.
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts logging to standard error, once in the life of a process.
pub fn init(level: &str, format: LogFormat) -> Result<LevelHandle, InitError> {
    let (subscriber, handle) = build(level, format, io::stderr)?;
    subscriber.try_init().map_err(|_| InitError::Twice)?;
    Ok(handle)
}

fn build<W>(level: &str, format: LogFormat, writer: W) -> Result<(impl Subscriber, LevelHandle), BadLevel>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_log_level(level)?);
    // Colour codes would be noise in a file or a collector.
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // The layer and the handle share one limiter, which counts for both.
    let throttled = Throttled::default();
    let foreign = Foreign(throttled.clone());
    let handle = LevelHandle { current: Arc::new(Mutex::new(level.to_owned())), filter: Some(handle), throttled };
    Ok((Registry::default().with(filter).with(foreign).with(lines), handle))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Clone, Default)]
    struct LogBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for LogBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LogBuffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce(&LevelHandle)) -> String {
        let lines = LogBuffer::default();
        let writer = lines.clone();
        let (subscriber, handle) = build("info", format, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || log(&handle));
        lines.text()
    }

    #[test]
    fn the_log_level_can_be_changed_while_running() {
        let text = logged(LogFormat::Text, |handle| {
            tracing::debug!("before");
            handle.set("debug").unwrap();
            tracing::debug!("after");
            handle.set("off").unwrap();
            tracing::error!("silenced");
        });
        assert!(text.contains("after") && !text.contains("before") && !text.contains("silenced"), "{text}");
    }

    #[test]
    fn repeated_warnings_of_other_crates_are_one_line_and_a_count() {
        let text = logged(LogFormat::Text, |handle| {
            for _ in 0..600 {
                tracing::warn!(target: "h2::proto::streams", "too many resets");
                tracing::warn!("our own");
            }
            handle.throttled().finish();
        });
        assert_eq!(text.matches("too many resets").count(), 1, "{text}");
        assert_eq!(text.matches("h2::proto::streams (and 599 more in the last minute)").count(), 1, "{text}");
        assert_eq!(text.matches("our own").count(), 600);
    }

    #[test]
    fn a_crate_whose_name_only_starts_with_vecho_is_a_foreign_crate() {
        let text = logged(LogFormat::Text, |_| {
            for _ in 0..3 {
                tracing::warn!(target: "vechoes", "a flood");
                tracing::info!(target: "h2", "no warning");
            }
        });
        assert_eq!((text.matches("a flood").count(), text.matches("no warning").count()), (1, 3), "{text}");
    }

    #[test]
    fn a_json_line_is_an_object_with_time_level_and_fields() {
        let text = logged(LogFormat::Json, |_| tracing::warn!(keys = 3, "told"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((&line["level"], &line["message"], &line["keys"]), (&"WARN".into(), &"told".into(), &3.into()));
        let at = line["timestamp"].as_str().unwrap();
        assert!(at.len() > 20 && &at[10..11] == "T" && at.ends_with('Z'), "{at} is not RFC 3339 in UTC");
    }

    #[test]
    fn an_invalid_level_keeps_the_old_one() {
        let text = logged(LogFormat::Text, |handle| {
            assert!(handle.set("verbose").is_err());
            assert_eq!(handle.current(), "info");
            tracing::info!("still there");
        });
        assert!(text.contains("still there"), "{text}");
    }

    #[test]
    fn a_detached_handle_validates_and_stores_the_level() {
        let handle = LevelHandle::detached();
        handle.clone().set("debug").unwrap();
        assert_eq!(handle.current(), "debug");
        assert!(handle.set("nonsense").is_err());
    }
}
