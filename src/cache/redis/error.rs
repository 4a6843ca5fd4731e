//! Classification of Redis errors.

use std::time::Duration;

use redis::{ErrorKind, RedisError};

/// Reason why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkError {
    /// It took too long. One late response means nothing; several in a row close the link.
    Slow(String),
    /// Redis cannot be reached, rejects this process, or cannot answer.
    Lost(String),
    /// Redis answers reads but refuses writes: it is full, or a read-only replica.
    Refused(String),
}

impl LinkError {
    pub(super) fn slow(limit: Duration) -> Self {
        Self::Slow(format!("no answer within {} ms", limit.as_millis()))
    }

    /// Classifies an error. Returns `None` if the error concerns one key only, which is a miss.
    pub(super) fn of(error: &RedisError) -> Option<Self> {
        let cause = cause(error);
        match error.code() {
            // `ERR` is the code of errors without a code of their own. It is taken to concern this key only.
            Some("WRONGTYPE" | "ASK" | "TRYAGAIN" | "ERR") => None,
            // The server is full, a replica, unable to save a snapshot, or short of replicas. Reads still work.
            Some("OOM" | "READONLY" | "MISCONF" | "NOREPLICAS") => Some(Self::Refused(cause)),
            // A client for clusters follows MOVED itself, so the configuration takes a cluster for a single server.
            Some("MOVED" | "CROSSSLOT") => Some(Self::Lost(format!("{cause} (a cluster needs redis.cluster = true)"))),
            None if error.is_timeout() => Some(Self::Slow(cause)),
            _ => Some(Self::Lost(cause)),
        }
    }

    /// Classifies an error of a write. A missing permission counts as a refused write.
    pub(super) fn of_write(error: &RedisError) -> Self {
        match (Self::of(error), error.code()) {
            (Some(Self::Lost(cause)), Some("NOPERM")) => Self::Refused(cause),
            (Some(error), _) => error,
            (None, _) => Self::Refused(cause(error)),
        }
    }

    pub(super) fn cause(&self) -> &str {
        let (Self::Slow(cause) | Self::Lost(cause) | Self::Refused(cause)) = self;
        cause
    }
}

/// Returns the server's message if there is one. Such messages never contain a password.
fn cause(error: &RedisError) -> String {
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) => "redis.username and redis.password are refused".to_owned(),
        (_, Some(code)) => format!("{code} {}", error.detail().unwrap_or_default()).trim_end().to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    fn said(line: &str) -> RedisError {
        let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("it is an answer");
        let Value::ServerError(error) = value else { panic!("{value:?} must be an error") };
        error.into()
    }

    #[test]
    fn an_error_about_one_key_is_not_an_outage() {
        let wrong = said("WRONGTYPE Operation against a key holding the wrong kind of value");
        assert_eq!(LinkError::of(&wrong), None);
        assert!(matches!(LinkError::of_write(&wrong), LinkError::Refused(_)));
    }

    #[test]
    fn authentication_and_availability_errors_mark_the_server_as_lost() {
        for line in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "LOADING Redis is loading the dataset in memory",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "NOPERM this user has no permissions to run the 'mget' command",
        ] {
            let Some(LinkError::Lost(cause)) = LinkError::of(&said(line)) else { panic!("{line}") };
            assert!(line.starts_with(&cause), "{cause:?} must be the words of {line:?}");
        }
    }

    #[test]
    fn a_full_or_read_only_server_refuses_writes_but_is_not_lost() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "READONLY You can't write against a read only replica.",
            "MISCONF Redis is configured to save RDB snapshots",
        ] {
            assert_eq!(LinkError::of(&said(line)), Some(LinkError::Refused(line.to_owned())));
        }
        let forbidden = said("NOPERM this user has no permissions to run the 'set' command");
        assert!(matches!(LinkError::of_write(&forbidden), LinkError::Refused(_)));
    }

    #[test]
    fn cluster_errors_of_a_single_server_suggest_the_cluster_setting() {
        for line in ["MOVED 3999 127.0.0.1:6381", "CROSSSLOT Keys in request don't hash to the same slot"] {
            let Some(LinkError::Lost(cause)) = LinkError::of(&said(line)) else { panic!("{line}") };
            assert!(cause.contains("redis.cluster = true"), "{cause}");
        }
    }
}
