//! An open link to Redis: its commands, each with a timeout.
//!
//! On a single server, related commands share one round trip. A cluster has no commands across slots, so each key gets
//! its own command there. All are sent at once over one connection per node, and a node that does not answer does not
//! affect the others. Values are read with GETRANGE, because MGET returns a value whole, however large it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::ConnectionLike as _;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo};
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value, cmd};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::Connection;
use super::error::LinkError;
use crate::config::RedisConfig;
use crate::vector::COMPONENT_BYTES;
use crate::wire::MAX_DIMENSIONS;

/// Compares fields with their expected values, and changes all of them or none. An empty value removes its field.
const SWAP: &str = "for i = 1, #ARGV, 3 do \
    if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end end \
    for i = 1, #ARGV, 3 do \
    if ARGV[i + 2] == '' then redis.call('HDEL', KEYS[1], ARGV[i]) \
    else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end end \
    return 1";

/// Timeout of writes and deletions. It may be longer than that of a read, because no request waits for it.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(1);

/// Size of the longest record: the largest number of f32 components, plus metadata.
pub(super) const MAX_RECORD_BYTES: usize = MAX_DIMENSIONS as usize * COMPONENT_BYTES + 4096;

/// Two connections, so that bulk writes never delay reads.
pub(super) struct Link {
    pub(super) queries: Connection,
    writes: Connection,
    /// True if Redis refuses scripts to this login.
    refuses_scripts: AtomicBool,
}

/// Results for several keys.
#[derive(Debug)]
pub(super) struct Answers<T> {
    /// Results in the order of the keys; `None` where there is none.
    pub(super) each: Vec<Option<T>>,
    /// First error that concerns more than one key.
    pub(super) error: Option<LinkError>,
}

/// Conditional change of one field of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Name of the field.
    pub field: String,
    /// Expected value; empty if the field must not exist.
    pub from: String,
    /// New value; empty if the field is removed.
    pub to: String,
}

/// Commands that belong together: those of one key, or a script for several keys.
pub(super) type Group = Vec<Cmd>;
/// Results of a group, one for each command; `None` after a timeout.
pub(super) type GroupResult = Option<RedisResult<Vec<RedisResult<Value>>>>;

impl Link {
    pub(super) async fn open(config: &RedisConfig) -> Result<Self, LinkError> {
        let (queries, writes) = tokio::join!(Connection::open(config), Connection::open(config));
        Ok(Self { queries: queries?, writes: writes?, refuses_scripts: AtomicBool::new(false) })
    }

    /// Returns true if Redis has refused scripts, without which there are no leases.
    pub(super) fn refuses_scripts(&self) -> bool {
        self.refuses_scripts.load(Ordering::Relaxed)
    }

    /// Notes that Redis refuses scripts, until the next connection.
    pub(super) fn note_refused_scripts(&self, cause: &str) {
        if !self.refuses_scripts.swap(true, Ordering::Relaxed) {
            tracing::warn!(cause, "Redis refuses scripts; each replica fetches texts for itself");
        }
    }

    /// Checks that Redis answers, on each primary node of a cluster.
    pub(super) async fn probe(&self, names: &[String], within: Duration) -> Result<(), LinkError> {
        let probe = async {
            match self.queries.clone() {
                Connection::Single(mut server) => {
                    let Some(name) = names.first() else { return Ok(Value::Nil) };
                    server.req_packed_command(&get(name)).await
                }
                Connection::Cluster(mut cluster) => {
                    let all = (MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::AllSucceeded));
                    cluster.route_command(cmd("PING"), RoutingInfo::MultiNode(all)).await
                }
            }
        };
        let answered = timeout(within, probe).await.map_err(|_| LinkError::slow(within))?;
        answered.and_then(Value::extract_error).map(drop).map_err(|error| lost(&error))
    }

    /// Reads the values of all names at once. A value longer than any record counts as missing.
    pub(super) async fn read(&self, names: &[String], within: Duration) -> Answers<Bytes> {
        let groups = names.iter().map(|name| vec![get(name)]).collect();
        let outcomes = self.queries.all(groups, within).await;
        Answers::of(outcomes, within, |mut values| bytes(values.pop()?))
    }

    /// Stores entries, each with a TTL in milliseconds. Returns which of them are stored.
    pub(super) async fn write(&self, entries: Vec<(String, Bytes, u64)>, within: Duration) -> Answers<()> {
        let set = |(name, value, for_ms): (String, Bytes, u64)| {
            vec![cmd("SET").arg(name).arg(&value[..]).arg("PX").arg(for_ms).to_owned()]
        };
        let outcomes = self.writes.all(entries.into_iter().map(set).collect(), within).await;
        Answers::of_writes(outcomes, within, |values| values.first().map(drop))
    }

    /// Deletes entries. Returns for each 1 if it was there, else 0. Deletions follow the writes that were sent before.
    pub(super) async fn delete(&self, names: Vec<String>, within: Duration) -> Answers<u64> {
        let groups = names.iter().map(|name| vec![cmd("DEL").arg(name).to_owned()]).collect();
        let outcomes = self.writes.all(groups, within).await;
        Answers::of_writes(outcomes, within, |values| match values.first() {
            Some(Value::Int(deleted)) => u64::try_from(*deleted).ok(),
            _ => None,
        })
    }

    /// Sets fields of a hash that lives for `length`, and returns all of its fields.
    pub(super) async fn exchange(
        &self,
        name: &str,
        (own, gone): (&BTreeMap<String, String>, &[String]),
        (length, within): (Duration, Duration),
    ) -> Answers<BTreeMap<String, String>> {
        let mut group = Vec::new();
        if !own.is_empty() {
            let mut set = cmd("HSET");
            set.arg(name);
            for (field, value) in own {
                set.arg(field).arg(value);
            }
            group.extend([set, cmd("EXPIRE").arg(name).arg(length.as_secs()).to_owned()]);
        }
        if !gone.is_empty() {
            group.push(cmd("HDEL").arg(name).arg(gone).to_owned());
        }
        group.push(cmd("HGETALL").arg(name).to_owned());
        let outcomes = self.queries.all(vec![group], within).await;
        Answers::of_writes(outcomes, within, |mut values| FromRedisValue::from_redis_value(values.pop()?).ok())
    }

    /// Returns all fields of a hash.
    pub(super) async fn fields(&self, name: &str, within: Duration) -> Result<BTreeMap<String, String>, LinkError> {
        let fields = self.query(cmd("HGETALL").arg(name), within).await?;
        fields.map_err(|error| lost(&error))
    }

    /// Makes all changes in a hash. Returns false and changes nothing if a field does not have its expected value.
    pub(super) async fn swap(&self, name: &str, changes: &[Change], within: Duration) -> Result<bool, LinkError> {
        let mut swap = cmd("EVAL");
        swap.arg(SWAP).arg(1).arg(name);
        for change in changes {
            swap.arg(&change.field).arg(&change.from).arg(&change.to);
        }
        let swapped = self.query(&swap, within).await?;
        swapped.map_err(|error| LinkError::of_write(&error))
    }

    async fn query<T: FromRedisValue>(&self, query: &Cmd, within: Duration) -> Result<RedisResult<T>, LinkError> {
        let answered = async {
            match self.queries.clone() {
                Connection::Single(mut server) => query.query_async(&mut server).await,
                Connection::Cluster(mut cluster) => query.query_async(&mut cluster).await,
            }
        };
        timeout(within, answered).await.map_err(|_| LinkError::slow(within))
    }
}

impl Connection {
    /// Sends all groups at once. Groups that are not answered in time give `None`.
    pub(super) async fn all(&self, groups: Vec<Group>, within: Duration) -> Vec<GroupResult> {
        match self.clone() {
            Connection::Single(mut server) => {
                // One pipeline holds the commands of all groups. Its answers are divided by the lengths of the groups.
                let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
                let pipeline = pipeline(groups.into_iter().flatten());
                match timeout(within, pipeline.query_async::<Vec<RedisResult<Value>>>(&mut server)).await {
                    Ok(Ok(values)) => {
                        let mut values = values.into_iter();
                        lengths.into_iter().map(|length| Some(Ok(values.by_ref().take(length).collect()))).collect()
                    }
                    Ok(Err(error)) => lengths.iter().map(|_| Some(Err(error.clone()))).collect(),
                    Err(_) => lengths.iter().map(|_| None).collect(),
                }
            }
            Connection::Cluster(cluster) => {
                let until = Instant::now() + within;
                let mut outcomes: Vec<GroupResult> = groups.iter().map(|_| None).collect();
                // The library fails a pipeline as a whole if one part fails, so each group is sent separately.
                let query = |(place, group): (usize, Group)| {
                    let mut cluster = cluster.clone();
                    async move { (place, pipeline(group).query_async(&mut cluster).await) }
                };
                let mut answered: FuturesUnordered<_> = groups.into_iter().enumerate().map(query).collect();
                // Answers that arrive in time count, even if another node is late.
                while let Ok(Some((place, outcome))) = timeout_at(until, answered.next()).await {
                    outcomes[place] = Some(outcome);
                }
                outcomes
            }
        }
    }
}

impl<T> Answers<T> {
    pub(super) fn of(outcomes: Vec<GroupResult>, within: Duration, read: impl Fn(Vec<Value>) -> Option<T>) -> Self {
        Self::judged(outcomes, within, read, LinkError::of)
    }

    pub(super) fn of_writes(
        outcomes: Vec<GroupResult>,
        within: Duration,
        read: impl Fn(Vec<Value>) -> Option<T>,
    ) -> Self {
        Self::judged(outcomes, within, read, |error| Some(LinkError::of_write(error)))
    }

    fn judged(
        outcomes: Vec<GroupResult>,
        within: Duration,
        read: impl Fn(Vec<Value>) -> Option<T>,
        judge: impl Fn(&redis::RedisError) -> Option<LinkError>,
    ) -> Self {
        let mut error = None;
        let judge_one = |outcome: GroupResult| match outcome {
            None => Err(Some(LinkError::slow(within))),
            Some(Err(error)) => Err(judge(&error)),
            Some(Ok(values)) => {
                // An error that concerns one key becomes nil, which is a miss. Any other error fails the group.
                let values =
                    values.into_iter().map(|value| value.or_else(|error| judge(&error).map_or(Ok(Value::Nil), Err)));
                values.collect::<Result<Vec<_>, LinkError>>().map_err(Some).map(&read)
            }
        };
        let each = outcomes.into_iter().map(|outcome| match judge_one(outcome) {
            Ok(answer) => answer,
            Err(found) => {
                error = error.take().or(found);
                None
            }
        });
        let each = each.collect();
        Self { each, error }
    }
}

fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    // Each command then has a result of its own, and an error of one key does not hide the others.
    pipeline.ignore_errors();
    pipeline
}

/// Builds a command that reads at most one byte more than the longest record, so a large value does not fill memory.
pub(super) fn get(name: &str) -> Cmd {
    cmd("GETRANGE").arg(name).arg(0).arg(MAX_RECORD_BYTES).to_owned()
}

pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        // GETRANGE answers an empty string for a missing key, and one byte too many for a value that is too long.
        Value::BulkString(bytes) if (1..=MAX_RECORD_BYTES).contains(&bytes.len()) => Some(Bytes::from(bytes)),
        _ => None,
    }
}

/// Classifies the error of a single command, which always concerns the whole result.
fn lost(error: &redis::RedisError) -> LinkError {
    LinkError::of(error).unwrap_or_else(|| LinkError::Lost(error.to_string()))
}
